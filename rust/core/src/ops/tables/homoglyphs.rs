//! Letters of different scripts that look alike in most typefaces.

/// Each entry is a set of letters that stand for each other.
pub(in crate::ops) const HOMOGLYPHS: [&str; 37] = [
    "aа", "cсϲ", "dԁ", "eе", "hһ", "iіι", "jјϳ", "lӏ", "oоοօ", "pрρ", "qԛ", "sѕ", "uս", "vνѵ", "wԝ", "xхχ", "yу",
    "AАΑ", "BВΒ", "CСϹ", "EЕΕ", "GԌ", "HНΗ", "IІΙӀ", "JЈ", "KКΚ", "MМΜ", "NΝ", "OОΟ", "PРΡ", "QԚ", "SЅ", "TТΤ", "VѴ",
    "WԜ", "XХΧ", "YҮΥ",
];
