//! The forms of English words: plurals and verbs, the article, numbers in words.

mod tables;

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::LazyLock;

use self::tables::{
    DOUBLED, ES, GLIDES, HEADS, KEEP_E, NO_FORMS, NO_GLIDES, NO_HEADS, NOUNS, ONE, PLURALS, READ, SILENT_H, SPELLED,
    VERBS,
};

/// How a word of a text differs from its entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Not at all.
    Base,
    /// The plural, or the third person.
    S,
    /// The past or the participle, which are one word.
    Ed,
    /// The past.
    Past,
    /// The participle.
    Participle,
    /// The progressive.
    Ing,
}

/// Plurals that do not follow the rules, by noun.
static IRREGULAR_NOUNS: LazyLock<HashMap<&str, &str>> = LazyLock::new(|| NOUNS.into_iter().chain(PLURALS).collect());

/// Nouns that keep their plural as the last part of a longer word, and it.
static HEAD_PLURALS: LazyLock<Vec<(&str, &str)>> =
    LazyLock::new(|| HEADS.into_iter().filter_map(|head| Some((head, *IRREGULAR_NOUNS.get(head)?))).collect());

/// The past and the participle of verbs that do not follow the rules.
static IRREGULAR_VERBS: LazyLock<HashMap<&str, (&str, &str)>> =
    LazyLock::new(|| VERBS.into_iter().map(|(verb, past, participle)| (verb, (past, participle))).collect());

/// The words that irregular forms are forms of, the form itself among them where it does not change.
static IRREGULAR_FORMS: LazyLock<HashMap<&str, Vec<(&str, Form)>>> = LazyLock::new(|| {
    let mut found: HashMap<&str, Vec<(&str, Form)>> =
        HashMap::from([("does", vec![("do", Form::S)]), ("has", vec![("have", Form::S)])]);
    for (noun, plural) in NOUNS.into_iter().chain(PLURALS) {
        found.entry(plural).or_default().push((noun, Form::S));
    }
    for (verb, past, participle) in VERBS {
        if past == participle {
            found.entry(past).or_default().push((verb, Form::Ed));
            continue;
        }
        found.entry(past).or_default().push((verb, Form::Past));
        found.entry(participle).or_default().push((verb, Form::Participle));
    }
    found
});

/// The words that an irregular form may be a form of, and the form.
pub(crate) fn irregular(word: &str) -> &'static [(&'static str, Form)] {
    IRREGULAR_FORMS.get(word).map_or(&[], Vec::as_slice)
}

/// The words that a word in small letters may be a form of, by the tables and by its ending, and the form.
///
/// Some of them are no words, or have other forms: `inflect` says which.
pub(crate) fn stems(word: &str) -> Vec<(String, Form)> {
    let mut found: Vec<(String, Form)> = irregular(word).iter().map(|&(stem, form)| (stem.into(), form)).collect();
    if NO_FORMS.contains(&word) {
        return found;
    }
    for (head, plural) in HEAD_PLURALS.iter() {
        if let Some(before) = word.strip_suffix(plural) {
            found.push((format!("{before}{head}"), Form::S));
        }
    }
    for (end, form) in [("s", Form::S), ("ed", Form::Ed), ("ing", Form::Ing)] {
        let Some(stem) = word.strip_suffix(end).filter(|stem| stem.len() > 1) else { continue };
        found.push((stem.into(), form));
        let mut last = stem.chars().rev();
        if let (Some(a), Some(b)) = (last.next(), last.next()) {
            if form == Form::S && a == 'e' {
                found.push((stem[..stem.len() - 1].into(), form));
            }
            if form != Form::S {
                found.push((format!("{stem}e"), form));
            }
            if form != Form::S && a == b {
                found.push((stem[..stem.len() - a.len_utf8()].into(), form));
            }
        }
        if let Some(stem) = stem.strip_suffix(if form == Form::S { "ie" } else { "i" }) {
            found.push((format!("{stem}y"), form));
        }
        if let (Form::Ing, Some(stem)) = (form, stem.strip_suffix('y')) {
            found.push((format!("{stem}ie"), form));
        }
        if let (Form::Ed | Form::Ing, Some(stem)) = (form, stem.strip_suffix('k')) {
            found.push((stem.into(), form));
        }
        for (ending, stem) in [("zze", "z"), ("se", "sis")] {
            if let (Form::S, Some(before)) = (form, word.strip_suffix("s").and_then(|word| word.strip_suffix(ending))) {
                found.push((format!("{before}{stem}"), form));
            }
        }
    }
    found
}

/// The form of an English word, or nothing if it has none, or one that the tables do not know.
pub(crate) fn inflect(word: &str, part: &str, form: Form) -> Option<String> {
    if form == Form::Base {
        return Some(word.into());
    }
    let (noun, verb) = (matches!(part, "n" | ""), matches!(part, "v" | ""));
    let last = *word.as_bytes().last()?;
    if !last.is_ascii_lowercase() || !(verb || noun && form == Form::S) {
        return None;
    }
    match form {
        Form::S if noun => {
            if let Some((kept, plural)) = irregular_plural(word) {
                return Some(format!("{}{plural}", &word[..kept]));
            }
        }
        Form::S if word == "be" => return None,
        Form::S if word == "have" => return Some("has".into()),
        _ => {}
    }
    if let (Form::Ed | Form::Past | Form::Participle, Some(&(past, participle))) = (form, IRREGULAR_VERBS.get(word)) {
        let found = match form {
            Form::Past => past,
            Form::Participle => participle,
            _ if past == participle => past,
            _ => "",
        };
        return Some(found).filter(|found| !found.is_empty()).map(Into::into);
    }
    let form = if matches!(form, Form::Past | Form::Participle) { Form::Ed } else { form };
    let before = word.len().checked_sub(2).map(|i| word.as_bytes()[i]);
    let vowel = |b: u8| matches!(b, b'a' | b'e' | b'i' | b'o' | b'u');
    let after_consonant = before.is_some_and(|b| b.is_ascii_lowercase() && !vowel(b));
    let stem = &word[..word.len() - 1];
    let hissing = word.ends_with("ch") || word.ends_with("sh") || matches!(last, b's' | b'x' | b'z');
    Some(match (form, last) {
        (Form::S, b'y') if after_consonant || word.ends_with("quy") => format!("{stem}ies"),
        (Form::S, b'o') if ES.contains(&word) => format!("{word}es"),
        (Form::S, b'z') if doubles(word) => format!("{word}zes"),
        (Form::S, _) if hissing => format!("{word}es"),
        (Form::S, _) => format!("{word}s"),
        (Form::Ed, b'e') => format!("{word}d"),
        (Form::Ed, b'y') if after_consonant => format!("{stem}ied"),
        (Form::Ing, b'e') if word.ends_with("ie") => format!("{}ying", &word[..word.len() - 2]),
        (Form::Ing, b'e') if KEEP_E.contains(&word) => format!("{word}ing"),
        (Form::Ing, b'e') if word.len() > 2 && !before.is_some_and(|b| matches!(b, b'e' | b'o' | b'y')) => {
            format!("{stem}ing")
        }
        (_, b'c') if word.ends_with("ic") => format!("{word}k{}", ending(form)),
        _ if doubles(word) => format!("{word}{}{}", char::from(last), ending(form)),
        _ => format!("{word}{}", ending(form)),
    })
}

fn ending(form: Form) -> &'static str {
    match form {
        Form::Base => "",
        Form::S => "s",
        Form::Ed | Form::Past | Form::Participle => "ed",
        Form::Ing => "ing",
    }
}

/// Whether a verb doubles its last letter before -ed and -ing: one syllable that ends in consonant, vowel, consonant.
fn doubles(word: &str) -> bool {
    if DOUBLED.contains(&word) {
        return true;
    }
    let letters: Vec<char> = word.replace("qu", "q").chars().collect();
    let vowel = |c: char| "aeiouy".contains(c);
    let groups = letters.windows(2).filter(|pair| vowel(pair[0]) && !vowel(pair[1])).count();
    match letters[..] {
        [.., a, b, c] => !vowel(a) && vowel(b) && !vowel(c) && !"wx".contains(c) && groups == 1 && !vowel(letters[0]),
        _ => false,
    }
}

/// The plural of `text`: of its last word, or of the word before " of ".
///
/// A word of the tables changes as they say, also as the end of a longer one ("grandchild"); all others by the rules for
/// -s, -es and -ies. A capital stays one, and what follows the last letter or digit stays where it is.
pub(crate) fn plural(text: &str) -> String {
    let head = text.find(" of ").unwrap_or(text.len());
    let end = text[..head].trim_end_matches(|sign: char| !sign.is_alphanumeric()).len();
    let start = text[..end]
        .rfind(|sign: char| !(sign.is_alphanumeric() || sign == '-'))
        .map_or(0, |at| at + text[at..].chars().next().map_or(1, char::len_utf8));
    if start == end {
        return text.to_owned();
    }
    format!("{}{}{}", &text[..start], plural_word(&text[start..end]), &text[end..])
}

fn plural_word(word: &str) -> String {
    let lower = word.to_lowercase();
    if let Some((first, rest)) = word.split_once("-in-") {
        return format!("{}-in-{rest}", plural_word(first));
    }
    if let Some((kept, many)) = irregular_plural(&lower).filter(|_| lower.len() == word.len()) {
        let mut out = word[..kept].to_owned();
        match word[kept..].chars().next() {
            Some(first) if first.is_uppercase() => {
                out.extend(first.to_uppercase());
                out.push_str(&many[1..]);
            }
            _ => out.push_str(many),
        }
        return out;
    }
    inflect(word, "n", Form::S).unwrap_or_else(|| format!("{word}s"))
}

/// How many bytes of a noun in small letters stay, and what follows them, where its plural is none of the rules'.
fn irregular_plural(word: &str) -> Option<(usize, &'static str)> {
    if let Some(many) = IRREGULAR_NOUNS.get(word) {
        return Some((0, many));
    }
    let seems = NO_HEADS.iter().any(|other| other.eq_ignore_ascii_case(word));
    if let Some((head, many)) = HEAD_PLURALS.iter().find(|(head, _)| word.ends_with(head)).filter(|_| !seems) {
        return Some((word.len() - head.len(), many));
    }
    (word.len() > 3 && word.ends_with("sis")).then(|| (word.len() - 2, "es"))
}

/// Whether the article before `text` is "an": by the sound with which its first word begins.
///
/// Numbers go by how they are read (8, 11, 18, 80; of four digits without a comma also by hundreds: "eighteen
/// hundred"), abbreviations and single letters by the name of their first letter.
pub(crate) fn takes_an(text: &str) -> bool {
    let word = text.trim_start_matches(|sign: char| !sign.is_alphanumeric());
    let Some(first) = word.chars().next() else { return false };
    if first.is_ascii_digit() {
        let number = &word[..word.find(|sign: char| !(sign.is_ascii_digit() || sign == ',')).unwrap_or(word.len())];
        let number = number.trim_end_matches(',');
        let digits: String = number.chars().filter(char::is_ascii_digit).collect();
        let hundreds = digits.len() == 4 && !number.contains(',');
        let group = if hundreds { 2 } else { (digits.len() - 1) % 3 + 1 };
        return first == '8' || matches!(&digits[..group], "11" | "18");
    }
    let end = word.find(|sign: char| !(sign.is_alphanumeric() || sign == '\'')).unwrap_or(word.len());
    let word = &word[..end];
    let lower = if word.bytes().all(|byte| byte.is_ascii_lowercase()) {
        Cow::Borrowed(word)
    } else {
        Cow::Owned(word.to_lowercase())
    };
    let vowel = |sign: char| "aeiouáàâäãåæéèêëíìîïóòôöõøœúùûü".contains(sign);
    let letters = word.chars().filter(|sign| sign.is_alphabetic()).count();
    let capitals = word.chars().all(|sign| sign.is_uppercase() || sign.is_ascii_digit());
    let voiced = lower.chars().any(|sign| vowel(sign) || sign == 'y');
    let spelled = (letters == 1 && first.is_ascii())
        || SPELLED.contains(&word)
        || (word.is_ascii() && !voiced)
        || (capitals && letters <= 3 && !READ.contains(&word));
    let mut low = lower.chars();
    let first = low.next().unwrap_or(first);
    if spelled {
        return "aefhilmnorsx".contains(first);
    }
    let begins = |table: &[&str]| table.iter().any(|start| lower.starts_with(start));
    match first {
        'h' => begins(&SILENT_H),
        'y' => low.next().is_some_and(|second| matches!(second, 't' | 'v')),
        'x' => lower.starts_with("xbox"),
        first => {
            vowel(first) && !READ.contains(&word) && !ONE.contains(&&*lower) && (!begins(&GLIDES) || begins(&NO_GLIDES))
        }
    }
}

/// `value` with its ordinal suffix: 1st, 12th, 23rd.
pub(crate) fn ordinal(value: i64) -> String {
    let suffix = match (value.unsigned_abs() % 10, value.unsigned_abs() % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{value}{suffix}")
}

/// `value` in words: "twenty-one", "one hundred five", "minus three".
pub(crate) fn words(value: i64) -> String {
    const ONES: [&str; 20] = [
        "zero",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "thirteen",
        "fourteen",
        "fifteen",
        "sixteen",
        "seventeen",
        "eighteen",
        "nineteen",
    ];
    const TENS: [&str; 10] = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];
    const GROUPS: [&str; 7] = ["", "thousand", "million", "billion", "trillion", "quadrillion", "quintillion"];
    let mut parts: Vec<String> = Vec::new();
    if value < 0 {
        parts.push("minus".into());
    }
    for (i, group) in GROUPS.iter().enumerate().rev() {
        let three = (value.unsigned_abs() / 1000u64.pow(i as u32) % 1000) as usize;
        if three >= 100 {
            parts.push(format!("{} hundred", ONES[three / 100]));
        }
        match three % 100 {
            0 => {}
            rest @ 1..20 => parts.push(ONES[rest].into()),
            rest if rest % 10 == 0 => parts.push(TENS[rest / 10].into()),
            rest => parts.push(format!("{}-{}", TENS[rest / 10], ONES[rest % 10])),
        }
        if three > 0 && i > 0 {
            parts.push((*group).into());
        }
    }
    if value == 0 {
        parts.push(ONES[0].into());
    }
    parts.join(" ")
}

/// A number in digits, with commas between the thousands before its point.
pub(crate) fn commas(number: &str) -> String {
    let start = usize::from(number.starts_with('-'));
    let end = number.find('.').unwrap_or(number.len());
    let mut out = number[..start].to_owned();
    for (i, digit) in number[start..end].chars().enumerate() {
        if i > 0 && (end - start - i).is_multiple_of(3) {
            out.push(',');
        }
        let _ = out.write_char(digit);
    }
    out + &number[end..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_follow_the_rules_of_english() {
        let form = |word, form| inflect(word, "", form).unwrap_or_default();
        for (word, s, ed, ing) in [
            ("walk", "walks", "walked", "walking"),
            ("hop", "hops", "hopped", "hopping"),
            ("try", "tries", "tried", "trying"),
            ("play", "plays", "played", "playing"),
            ("make", "makes", "made", "making"),
            ("agree", "agrees", "agreed", "agreeing"),
            ("tie", "ties", "tied", "tying"),
            ("watch", "watches", "watched", "watching"),
            ("open", "opens", "opened", "opening"),
            ("prefer", "prefers", "preferred", "preferring"),
            ("panic", "panics", "panicked", "panicking"),
            ("arc", "arcs", "arced", "arcing"),
            ("singe", "singes", "singed", "singeing"),
            ("whiz", "whizzes", "whizzed", "whizzing"),
            ("fix", "fixes", "fixed", "fixing"),
            ("go", "goes", "", "going"),
            ("quit", "quits", "quit", "quitting"),
            ("aid", "aids", "aided", "aiding"),
            ("keep", "keeps", "kept", "keeping"),
        ] {
            assert_eq!(
                (form(word, Form::S), form(word, Form::Ed), form(word, Form::Ing)),
                (s.into(), ed.into(), ing.into())
            );
        }
        let forms =
            |word| [Form::Ed, Form::Past, Form::Participle].map(|form| inflect(word, "v", form).unwrap_or_default());
        assert_eq!(forms("go"), ["", "went", "gone"]);
        assert_eq!(forms("be"), ["", "", "been"]);
        assert_eq!(forms("walk"), ["walked"; 3]);
        assert_eq!(inflect("child", "n", Form::S).as_deref(), Some("children"));
        assert_eq!(inflect("child", "n", Form::Ed), None);
        assert_eq!(inflect("big", "a", Form::S), None);
        assert_eq!(inflect("語", "", Form::S), None);
        assert_eq!(inflect("", "", Form::S), None);
    }

    #[test]
    fn every_irregular_form_leads_back() {
        for (noun, plural) in NOUNS.into_iter().chain(PLURALS) {
            assert!(stems(plural).contains(&(noun.into(), Form::S)), "{noun}");
        }
        for (verb, past, participle) in VERBS {
            for (form, word) in [(Form::Past, past), (Form::Participle, participle)] {
                let form = if past == participle { Form::Ed } else { form };
                assert!(word.is_empty() || stems(word).contains(&(verb.into(), form)), "{verb}");
            }
        }
        assert!(VERBS.is_sorted());
        assert_eq!(irregular("came"), [("come", Form::Past)]);
        assert_eq!(irregular("walked"), []);
        assert_eq!(stems("was"), []);
        assert_eq!(stems("does"), [("do".into(), Form::S)]);
        for (word, stem, form) in [
            ("grandchildren", "grandchild", Form::S),
            ("neuroses", "neurosis", Form::S),
            ("quizzes", "quiz", Form::S),
            ("panicked", "panic", Form::Ed),
            ("lying", "lie", Form::Ing),
        ] {
            assert!(stems(word).contains(&(stem.into(), form)), "{word}");
        }
    }

    #[test]
    fn nouns_have_their_plurals() {
        for (one, many) in [
            ("apple", "apples"),
            ("berry", "berries"),
            ("soliloquy", "soliloquies"),
            ("day", "days"),
            ("box", "boxes"),
            ("church", "churches"),
            ("stomach", "stomachs"),
            ("Mouse", "Mice"),
            ("red mouse", "red mice"),
            ("grandchild", "grandchildren"),
            ("policewoman", "policewomen"),
            ("German", "Germans"),
            ("human", "humans"),
            ("sheep", "sheep"),
            ("cup of tea", "cups of tea"),
            ("mother-in-law", "mothers-in-law"),
            ("hypothesis", "hypotheses"),
            ("neurosis", "neuroses"),
            ("bus", "buses"),
            ("CPU", "CPUs"),
            ("café", "cafés"),
            ("photo", "photos"),
            ("potato", "potatoes"),
            ("leaf", "leaves"),
            ("roof", "roofs"),
            ("key!", "keys!"),
            ("", ""),
            ("...", "..."),
        ] {
            assert_eq!(plural(one), many, "{one}");
        }
    }

    #[test]
    fn the_article_goes_by_sound() {
        for an in [
            "apple",
            "hour",
            "honest man",
            "heir",
            "uncle",
            "umbrella",
            "unimportant remark",
            "Englishman",
            "8",
            "80",
            "800",
            "8,000",
            "11",
            "18",
            "11th",
            "8.5",
            "1800",
            "11,000",
            "18-year-old",
            "MRI",
            "FBI agent",
            "X-ray",
            "x",
            "F",
            "L-shape",
            "HTML page",
            "mp3",
            "nth",
            "\"apple\"",
            "(odd)",
            "école",
            "Xbox",
            "usher",
            "NAACP",
            "yttrium",
            "urn",
            "SOS",
            "EU",
            "8:15",
            "onion",
            "underdog",
            "M",
            "LED",
            "Illinois",
        ] {
            assert!(takes_an(an), "{an}");
        }
        for a in [
            "pear",
            "unicorn",
            "university",
            "European",
            "one",
            "one-way street",
            "once",
            "useful",
            "user",
            "UFO",
            "URL",
            "USB",
            "U-turn",
            "1",
            "7",
            "10",
            "110",
            "180",
            "1,100",
            "1,800",
            "118,000",
            "house",
            "history",
            "hotel",
            "NASA",
            "RAM",
            "UNESCO",
            "yes",
            "yellow",
            "xylophone",
            "BBC",
            "PDF",
            "u",
            "utility",
            "unanimous",
            "ewe",
            "Ukrainian",
            "ukulele",
            "",
            "...",
            "語",
            "T-shirt",
            "CPU",
            "1.8",
        ] {
            assert!(!takes_an(a), "{a}");
        }
    }

    #[test]
    fn numbers_have_words() {
        for (value, expected) in [
            (0, "zero"),
            (13, "thirteen"),
            (21, "twenty-one"),
            (40, "forty"),
            (105, "one hundred five"),
            (1_000_000, "one million"),
            (-1_234_567, "minus one million two hundred thirty-four thousand five hundred sixty-seven"),
            (
                i64::MIN,
                "minus nine quintillion two hundred twenty-three quadrillion three hundred seventy-two trillion \
                        thirty-six billion eight hundred fifty-four million seven hundred seventy-five thousand eight hundred eight",
            ),
        ] {
            assert_eq!(words(value), expected);
        }
        assert_eq!(
            [1, 2, 3, 4, 11, 12, 13, 21, 111, -1, 0].map(ordinal).join(" "),
            "1st 2nd 3rd 4th 11th 12th 13th 21st 111th -1st 0th"
        );
        assert_eq!(
            ["1", "123", "1234", "-1234567.125", "-123", "0.5"].map(commas).join(" "),
            "1 123 1,234 -1,234,567.125 -123 0.5"
        );
    }
}
