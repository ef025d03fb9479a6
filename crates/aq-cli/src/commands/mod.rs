//! One file a command.

pub(crate) mod calibrate;
pub(crate) mod compare;
pub(crate) mod completions;
pub(crate) mod convert;
pub(crate) mod dequantize;
pub(crate) mod init;
pub(crate) mod inspect;
pub(crate) mod man;
pub(crate) mod plan;
pub(crate) mod quantize;
pub(crate) mod search;
pub(crate) mod verify;
