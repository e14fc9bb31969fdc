//! Files for whoever looks at the page.

use wasm_bindgen::prelude::*;
use web_sys::js_sys::{Array, Uint8Array};

/// Hands a file to the browser, which saves it among its downloads or asks where.
///
/// # Errors
/// A sentence with the browser's words, if it refuses.
pub(crate) fn download(name: &str, bytes: &[u8]) -> Result<(), String> {
    let offer = || -> Result<(), JsValue> {
        let document = web_sys::window().and_then(|w| w.document()).ok_or("there is no page to download from")?;
        // Of one piece: the array is copied into the blob at once.
        let parts = Array::of1(&Uint8Array::from(bytes));
        let blob = web_sys::Blob::new_with_u8_array_sequence(&parts)?;
        let url = web_sys::Url::create_object_url_with_blob(&blob)?;
        let link = document.create_element("a")?.dyn_into::<web_sys::HtmlAnchorElement>()?;
        link.set_href(&url);
        link.set_download(name);
        link.click();
        web_sys::Url::revoke_object_url(&url)
    };
    offer().map_err(|error| format!("the browser did not take {name}: {error:?}"))
}
