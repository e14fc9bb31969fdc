//! The data sets there are. One more is its file and its line at the end of this one.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{ImageDataset, Open, Place, Split};
use crate::error::Result;

macro_rules! datasets {
    ($first:literal => $first_kind:ident($first_set:ty) $(, $name:literal => $kind:ident($set:ty))* $(,)?) => {
        /// Which data set.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub enum DatasetKind {
            #[doc = concat!("[`", stringify!($first_set), "`]")]
            #[default]
            #[serde(rename = $first)]
            $first_kind,
            $(
                #[doc = concat!("[`", stringify!($set), "`]")]
                #[serde(rename = $name)]
                $kind,
            )*
        }

        impl DatasetKind {
            /// Its name in configurations.
            pub fn name(self) -> &'static str {
                match self {
                    Self::$first_kind => $first,
                    $(Self::$kind => $name,)*
                }
            }

            /// Whether its pictures have any size and are brought to the model's, by [`Preprocess`](super::Preprocess).
            pub fn has_any_size(self) -> bool {
                match self {
                    Self::$first_kind => <$first_set>::ANY_SIZE,
                    $(Self::$kind => <$set>::ANY_SIZE,)*
                }
            }

            /// Whether it is read from the folder `data.path`.
            pub fn is_in_folder(self) -> bool {
                match self {
                    Self::$first_kind => <$first_set>::IN_FOLDER,
                    $(Self::$kind => <$set>::IN_FOLDER,)*
                }
            }

            /// Opens a split.
            pub(crate) fn open(self, place: &Place<'_>, split: Split) -> Result<Arc<dyn ImageDataset>> {
                Ok(match self {
                    Self::$first_kind => Arc::new(<$first_set>::open_split(place, split)?),
                    $(Self::$kind => Arc::new(<$set>::open_split(place, split)?),)*
                })
            }
        }
    };
}

datasets! {
    "digits" => Digits(super::Digits),
    "mnist" => Mnist(super::Mnist),
    "folder" => Folder(super::ImageFolder),
    "shards" => Shards(super::Shards),
    "cifar10" => Cifar10(super::Cifar10),
    "cifar100" => Cifar100(super::Cifar100),
    "emoji" => Emoji(super::Emoji),
}
