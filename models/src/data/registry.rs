//! The data sets there are. One more is its file and its line at the end of this one.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{DataConfig, Dataset, ImageShape, Open, Split};
use crate::error::{Error, Result};

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

            /// Whether its pictures have any size and are brought to the model's, by `data.crop_pct`.
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

            fn open(self, config: &DataConfig, shape: ImageShape, split: Split) -> Result<Arc<dyn Dataset>> {
                Ok(match self {
                    Self::$first_kind => Arc::new(<$first_set>::open_split(config, shape, split)?),
                    $(Self::$kind => Arc::new(<$set>::open_split(config, shape, split)?),)*
                })
            }
        }
    };
}

datasets! {
    "digits" => Digits(super::Digits),
    "mnist" => Mnist(super::Mnist),
    "folder" => Folder(super::ImageFolder),
}

/// Opens a data set for a model that takes images of `shape`.
///
/// # Errors
/// A data set that is not there or damaged, or whose images have another shape.
pub fn open(config: &DataConfig, shape: ImageShape, split: Split) -> Result<Arc<dyn Dataset>> {
    let kind = config.dataset;
    if kind.is_in_folder() && config.path.as_os_str().is_empty() {
        return Err(Error::Config(format!(
            "the data set `{}` is read from a folder: set data.path (--set data.path=FOLDER)",
            kind.name()
        )));
    }
    let dataset = kind.open(config, shape, split)?;
    let given = dataset.image_shape();
    if given != shape {
        return Err(Error::Config(format!(
            "the data set {} has images of {given} but the model takes {shape} (model.in_chans = {}, model.image_size = {}); \
             make the two agree",
            dataset.name(),
            shape.channels,
            shape.height
        )));
    }
    Ok(dataset)
}

/// Checks that a classifier of `num_classes` outputs fits the data set.
///
/// # Errors
/// If it does not.
pub fn check_classes(dataset: &dyn Dataset, num_classes: usize) -> Result<()> {
    let classes = dataset.classes().len();
    if classes != num_classes {
        return Err(Error::Config(format!(
            "the data set {} has {classes} classes but model.num_classes is {num_classes}; set model.num_classes={classes}",
            dataset.name(),
        )));
    }
    Ok(())
}
