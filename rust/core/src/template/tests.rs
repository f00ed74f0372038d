use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::expr::{Expr, Op};
use super::parse::{Arm, Item, Rule, Sampler, Weight, canonical};
use super::*;

pub(super) fn grammar(source: &str) -> Grammar {
    Grammar::compile(source, None).unwrap()
}

fn refusal(source: &str) -> String {
    Grammar::compile(source, None).unwrap_err().to_string()
}

pub(super) fn texts(expanded: &Expanded<u8>) -> Vec<String> {
    expanded.rows.view().iter().map(|row| String::from_utf8(row.to_vec()).unwrap()).collect()
}

fn all(grammar: &Grammar) -> Vec<String> {
    let count = u64::try_from(grammar.count()).unwrap();
    (0..count).map(|k| texts(&grammar.nth(&k.into()).unwrap()).remove(0)).collect()
}

fn sampling(rows: usize, seed: u64) -> Sampling<'static> {
    Sampling { seed, name: "g", rows, shard: (0, 1), law: Law::Weights, replace: true }
}

#[test]
fn derivations_come_in_the_order_of_the_text() {
    assert_eq!(all(&grammar("x = a | b(c)? | {d=choice e, f}{d}")), ["a", "b", "bc", "ee", "ff"]);
    assert_eq!(all(&grammar("x = {a=int 1..2}{y}{=a*10}\ny = - | +")), ["1-10", "1+10", "2-20", "2+20"]);
    assert_eq!(all(&grammar("x = {a=int -3..3 step 3}")), ["-3", "0", "3"]);
    assert_eq!(all(&grammar("x = ({a=choice 1, 2} | b)?.")), [".", "1.", "2.", "b."]);
}

#[test]
fn a_hidden_draw_binds_and_shows_nothing() {
    assert_eq!(all(&grammar("x = {!a=int 1..2}{!b=choice p, q}{!c=choice 3, 4}{a}{b}{=a*c}")).len(), 8);
    assert_eq!(all(&grammar("x = {!a=int 1..2}<t>{!b=choice p, q}</t>{a}{b}")), ["1p", "1q", "2p", "2q"]);
}

#[test]
fn signs_mean_what_the_chapter_says() {
    assert_eq!(all(&grammar("x = is it f(a, b) or not?")), ["is it f(a, b) or not?"]);
    assert_eq!(
        all(&grammar("x = f() \\(really\\)? \\{a\\} a \\| b, x \\:: 3 # a comment")),
        ["f() (really)? {a} a | b, x :: 3"]
    );
    assert_eq!(all(&grammar("x = C# and #1 a < b <= c\\ ")), ["C# and #1 a < b <= c "]);
    assert_eq!(all(&grammar("\n# first\n x =\n  | a # one\n\n  # two\n  | b \\\n    c\r\ny = d")), ["a", "b c"]);
    assert_eq!(
        all(&grammar("x = a\\n\\tb( c | d |\\ {=\"q\" + 'r\\''} )?")),
        ["a\n\tb", "a\n\tb c", "a\n\tbd", "a\n\tb qr' "]
    );
}

#[test]
fn expressions_follow_python() {
    let value = |expr: &str| {
        all(&grammar(&format!("x = {{a=int 7..7}}{{b=int -2..-2}}{{s=choice z}}:{{={expr}}}")))[0][5..].to_owned()
    };
    for (expr, expected) in [
        ("a+b*3", "1"),
        ("(a+b)*3", "15"),
        ("a//b", "-4"),
        ("a%b", "-1"),
        ("-a//2", "-4"),
        ("-a%2", "1"),
        ("a - -b - 1", "4"),
        ("-9223372036854775808 % -1", "0"),
        ("a > b", "true"),
        ("(a <= b) == (1 > 2)", "true"),
        ("s + 'y' == \"zy\"", "true"),
        ("s < 'a'", "false"),
        ("s + s", "zz"),
        ("--a", "7"),
    ] {
        assert_eq!(value(expr), expected, "{expr}");
    }
}

#[test]
fn bindings_reach_called_rules_and_later_parts() {
    let g = grammar("task = {intro} {a}{ask}\nintro = {a=int 1..2}\nask = +{a}={=a+a}");
    assert_eq!(all(&g), ["1 1+1=2", "2 2+2=4"]);
    let bindings: Vec<Binding> = grammar("x = {a=int 1..2}({b=choice p, q})?\nu = {c=int 1..1}").bindings().collect();
    assert_eq!(
        bindings,
        [
            Binding { name: "a".into(), of: Type::Int, always: true, made: false },
            Binding { name: "b".into(), of: Type::Text, always: false, made: false },
        ]
    );
}

#[test]
fn bounded_recursion_unfolds_to_its_depth() {
    let g = grammar("e[depth=2] = {e}+{e} | x");
    assert_eq!(all(&g), ["x+x", "x"]);
    let g = grammar("s = {e}\ne[depth=3] = ({e}) | x");
    assert_eq!(all(&g), ["((x))", "(x)", "x"]);
    // Catalan-like growth: c(d) = c(d - 1)^2 + 1.
    assert_eq!(grammar("e[depth=5] = {e}{e} | x").count(), &BigUint::from(677u32));
}

#[test]
fn counts_are_exact_beyond_any_word() {
    let rules: String =
        (0..300).map(|i| format!("r{i} = {{x{i}=choice 0, 1, 2, 3, 4, 5, 6, 7, 8, 9}}{{r{}}}\n", i + 1)).collect();
    let g = grammar(&format!("{rules}r300 = ."));
    assert_eq!(g.count(), &BigUint::from(10u32).pow(300));
    let index: BigUint = "1234567890".repeat(30).parse().unwrap();
    assert_eq!(texts(&g.nth(&index).unwrap()), [format!("{index}.")]);
    let sample = g.sample(&Sampling { law: Law::Uniform, ..sampling(50, 3) }).unwrap();
    assert!(sample.indices.is_none());
    assert_eq!(texts(&sample.expanded).into_iter().collect::<HashSet<_>>().len(), 50);
}

#[test]
fn a_long_chain_of_rules_needs_no_thread_stack() {
    let rules: String = (0..100_000).map(|i| format!("r{i} = {{r{}}}.\n", i + 1)).collect();
    let g = grammar(&format!("{rules}r100000 = ."));
    assert_eq!(texts(&g.nth(&0u32.into()).unwrap())[0].len(), 100_001);
}

#[test]
fn mistakes_are_shown_where_they_are() {
    let cases = [
        ("task = hi {nmae}\nname = Anna", 1, 12, "undefined rule 'nmae' (did you mean 'name'?)"),
        ("a = b\n\n  a = c", 3, 3, "duplicate rule 'a': it is defined in line 1"),
        ("a =", 1, 1, "empty rule 'a': it needs text or a slot"),
        ("a = # only a comment\nb = c", 1, 1, "empty rule 'a': it needs text or a slot"),
        ("a = b | | c", 1, 9, "empty alternative: put optional text in ( ... )?, or write \\| to have a bar as text"),
        ("a = b ()?", 1, 7, "empty group: it needs text or a slot"),
        ("a = {a} b | c", 1, 6, "left recursion: 'a' begins with itself (a -> a); give it a bound: a[depth=4] = ..."),
        (
            "a = x {b}\nb = (p)?{c}\nc = {o}{b} | y\no = (z)?",
            3,
            9,
            "left recursion: 'b' begins with itself (b -> c -> b); give it a bound: b[depth=4] = ...",
        ),
        ("a = b {a} | c", 1, 8, "unbounded recursion: 'a' calls itself (a -> a); give it a bound: a[depth=4] = ..."),
        (
            "s = {a}\na[depth=3] = x {a}",
            2,
            1,
            "rule 'a' never ends: each of its alternatives calls a rule beyond its depth",
        ),
        ("a[depth=0] = x", 1, 3, "expected [depth=N] with N from 1 to 1000"),
        (
            "a = {x=imt 1..2}",
            1,
            8,
            "unknown sampler 'imt' (did you mean 'int'?): there are int, float, date, choice, lex:name and col:name",
        ),
        ("a = {x=int 3..1}", 1, 8, "3..1 holds no integer: the lower bound comes first"),
        ("a = {x=int 1..2 step 0}", 1, 22, "the step must be above 0"),
        ("a = {x=int 1-2}", 1, 13, "expected '..': an int is drawn from {name=int 1..9} or {name=int 0..100 step 5}"),
        ("a = {x=int 1..99999999999999999999}", 1, 15, "99999999999999999999 leaves the 64-bit integers"),
        (
            "a = {x=int -9223372036854775808..9223372036854775807}",
            1,
            8,
            "-9223372036854775808..9223372036854775807 holds too many integers: at most 2^64 - 1",
        ),
        ("a = {x=choice p,,q}", 1, 17, "empty option: {name=choice x, y} takes texts with commas between them"),
        ("a = {=x+1}", 1, 7, "unbound variable 'x': draw it first, as in {x=int 1..9}"),
        ("a = {=b+1}\nb = 2", 1, 7, "type clash: 'b' is a rule, and expressions take bindings: {x=int 1..9} binds x"),
        ("a = ({x=int 1..2})? {=x}", 1, 23, "unbound variable 'x': not every way to this place draws it before"),
        (
            "a = {b}{x}\nb = {x=int 1..2} | none",
            1,
            9,
            "unbound variable 'x': not every way to this place draws it before",
        ),
        ("a = {x=choice p, q}{=x+1}", 1, 23, "type clash: '+' cannot join a string and an integer"),
        ("a = {x=choice p, q}{=-x}", 1, 22, "type clash: '-' needs a number, not a string"),
        (
            "a = {x=choice p, q}{x=int 1..2}",
            1,
            21,
            "type clash: 'x' is an integer here and a string where it is drawn first",
        ),
        ("a = {b=int 1..2}\nb = c", 1, 6, "'b' is a rule, defined in line 2: give the binding another name"),
        ("a = {=1<2<3}", 1, 10, "comparisons do not chain: join two by 'and', or put one in parentheses"),
        ("a = {=1 2}", 1, 9, "expected an operator, '|' or '}'"),
        ("a = {=(1}", 1, 7, "unclosed parenthesis"),
        ("a = {='x}", 1, 7, "unclosed string"),
        ("a = {=}", 1, 7, "expected a number, a binding, a function, a string or '('"),
        ("a = b (c\nd = e", 1, 7, "unclosed group: expected ')' in the same alternative; write \\( to have it as text"),
        ("a = b )", 1, 7, "')' closes nothing: write \\) to have it as text"),
        ("a = b }", 1, 7, "'}' closes nothing: write \\} to have it as text"),
        ("a = {b\nb = c", 1, 5, "unclosed slot: expected '}' on the same line; write \\{ to have it as text"),
        ("a = {x=int 1..2\n", 1, 5, "unclosed slot: expected '}' on the same line; write \\{ to have it as text"),
        ("a = {!b}\nb = c", 1, 5, "'!' hides a draw, as in {!name=int 1..9}: this draws nothing"),
        ("a = <t>x | y</t>", 1, 5, "unclosed tag <t>: it must close in the alternative that opens it"),
        ("a = <t>x</u>", 1, 9, "expected </t>, found </u>"),
        ("a = x</t>", 1, 6, "</t> closes nothing: write \\< to have it as text"),
        (
            "a = (b | c)",
            1,
            5,
            "alternatives in parentheses make an optional group '( ... )?': add the '?', make them a rule, or \
             write \\| and \\:: to have the signs as text",
        ),
        (
            "a = b :: 0",
            1,
            7,
            "expected a weight after '::': a number above 0 with at most 9 digits on either side of its point; write \
             \\:: to have the colons as text",
        ),
        ("a = b :: 2 c | d", 1, 12, "a weight ends its alternative: expected '|' or the end of the line"),
        (
            "a = b :: 999999999 | c :: 0.000000001",
            1,
            1,
            "the weights are too unequal: as whole numbers in lowest terms they must sum to less than 2^32",
        ),
        ("a = \\q", 1, 5, "unknown escape '\\q': there are \\n, \\r, \\t, and \\ before any sign"),
        ("| a", 1, 1, "expected a rule: name = text | text"),
        ("hello", 1, 6, "expected a rule: name = text | text"),
    ];
    for (source, line, column, message) in cases {
        let error = Grammar::compile(source, None).map(|_| ()).expect_err(source);
        assert_eq!(error.position(), Some((line, column)), "{source}: {error}");
        assert_eq!(error.message().lines().next(), Some(message), "{source}");
    }
    assert_eq!(refusal(""), "the grammar has no rule: write name = text");
    assert_eq!(
        refusal("a = b\nnaïve = {x=int 1..2} {=x & 2}"),
        "line 2, column 26: expected an operator, '|' or '}'\n  naïve = {x=int 1..2} {=x & 2}\n                           ^"
    );
    let error = Grammar::compile("task = a\nother = b", Some("tsak")).unwrap_err();
    assert_eq!(error.to_string(), "start: there is no rule 'tsak' (did you mean 'task'?)");
}

#[test]
fn what_would_take_forever_is_refused() {
    let double: String = (0..60).map(|i| format!("r{i} = {{r{}}}{{r{}}}\n", i + 1, i + 1)).collect();
    assert!(refusal(&format!("{double}r60 = x")).contains("more than 16777216 bytes and steps"));
    let choose: String = (0..18).map(|i| format!("r{i} = {{r{}}}{{r{}}}\n", i + 1, i + 1)).collect();
    assert!(refusal(&format!("{choose}r18 = x | y")).contains("more than 2^65536 derivations"));
    let (open, close) = ("(".repeat(5000), ")".repeat(5000));
    assert!(refusal(&format!("a = {open}x{close}")).contains("nested more than 100 deep"));
    assert!(refusal(&format!("a = {{={open}1{close}}}")).contains("nested more than 100 deep"));
    assert!(refusal(&format!("a = {{={}1}}", "-".repeat(5000))).contains("nested more than 100 deep"));
    assert!(refusal(&format!("a = {{={}1}}", "1+".repeat(5000))).contains("more than 1000 parts"));
    let many: String = (0..70).map(|i| format!("r{i}[depth=1] = {{r{}}} | x{{r{i}}}\n", (i + 1) % 70)).collect();
    assert!(refusal(&many).contains("more than 64 rules with a depth call themselves"));
    let deep: String = (0..9).map(|i| format!("r{i}[depth=900] = x{{r{}}}{{r0}} | y\n", (i + 1) % 9)).collect();
    assert!(refusal(&deep).contains("lower them"));
}

#[test]
fn computed_slots_without_a_value_say_why() {
    let g = grammar("x = a | {a=int 6..6}/{b=int 0..1} is {= a // b }");
    let error = g.nth(&1u32.into()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "line 1, column 43: division by zero in {=a // b} with a = 6, b = 0 (derivation 1)\n  \
         x = a | {a=int 6..6}/{b=int 0..1} is {= a // b }\n                                            ^"
    );
    assert_eq!(texts(&g.nth(&2u32.into()).unwrap()), ["6/1 is 6"]);
    let error = g.sample(&Sampling { replace: false, ..sampling(3, 1) }).unwrap_err();
    assert!(error.message().starts_with("division by zero in {=a // b} with a = 6, b = 0 (draw "), "{error}");
    let g = grammar("x = {a=int 9223372036854775807..9223372036854775807}{=a+1}");
    assert!(g.nth(&0u32.into()).unwrap_err().message().starts_with("the result leaves the 64-bit integers in {=a+1}"));
}

#[test]
fn sampling_refuses_what_it_cannot_do() {
    let g = grammar("x = a :: 2 | b");
    let refuse = |how: Sampling<'_>| g.sample(&how).unwrap_err().to_string();
    assert_eq!(
        refuse(Sampling { replace: false, ..sampling(1, 0) }),
        "replace=False draws all derivations alike, but the grammar has weights: pass law=\"uniform\" to ignore them"
    );
    let uniform = Sampling { replace: false, law: Law::Uniform, ..sampling(2, 0) };
    assert_eq!(
        refuse(Sampling { shard: (1, 2), ..uniform }),
        "replace=False: n = 2 in shard (1, 2) needs 4 derivations, the grammar has 2"
    );
    assert_eq!(refuse(Sampling { shard: (2, 2), ..uniform }), "shard must be (r, R) with r below R (it is (2, 2))");
    assert_eq!(
        refuse(Sampling { shard: (0, u64::MAX), ..sampling(3, 0) }),
        "n = 3 is too many for shard (0, 18446744073709551615)"
    );
    assert_eq!(g.nth(&2u32.into()).unwrap_err().to_string(), "nth: the index must be below count() = 2 (it is 2)");
}

#[test]
fn big_grammars_draw_without_replacement_too() {
    let ten: String = (0..20).map(|i| format!("{{x{i}=int 0..9}}")).collect();
    let g = grammar(&format!("x = {ten}"));
    let how = Sampling { replace: false, ..sampling(2000, 5) };
    let drawn = texts(&g.sample(&how).unwrap().expanded);
    assert_eq!(drawn.iter().collect::<HashSet<_>>().len(), 2000);
    let g = grammar(&format!("x = {ten}{{y=int 0..9999999999}}{{z=int 0..9999999999}}"));
    assert!(
        g.sample(&how).unwrap_err().message().starts_with("replace=False takes grammars of up to 2^128 derivations")
    );
}

/// A derivation in the making, as the naive oracle sees it.
#[derive(Clone, Default)]
struct Naive {
    text: String,
    spans: Vec<(usize, usize, String)>,
    bindings: HashMap<String, String>,
}

fn naive_items(rules: &[Rule], items: &[Item], mut states: Vec<Naive>) -> Vec<Naive> {
    for item in items {
        states = states
            .into_iter()
            .flat_map(|state| {
                let with = |text: &str| Naive { text: state.text.clone() + text, ..state.clone() };
                let draw = |name: &str, value: String, hidden: bool| {
                    let mut next = with(if hidden { "" } else { &value });
                    next.bindings.insert(name.to_owned(), value);
                    next
                };
                match item {
                    Item::Text(text) => vec![with(text)],
                    Item::Name { name, .. } => match rules.iter().find(|rule| rule.name == *name) {
                        Some(rule) => naive_arms(rules, &rule.arms, state),
                        None => vec![with(&state.bindings[name])],
                    },
                    Item::Draw { name, sampler: Sampler::Range { low, high, step, .. }, hidden, .. } => {
                        let values = (*low..=*high).step_by(*step as usize);
                        values.map(|value| draw(name, value.to_string(), *hidden)).collect()
                    }
                    Item::Draw { name, sampler: Sampler::Choice(options), hidden, .. } => {
                        options.iter().map(|option| draw(name, option.clone(), *hidden)).collect()
                    }
                    Item::Compute { expr: Expr::Binary { left, right, .. }, .. } => {
                        let value = |expr: &Expr| match expr {
                            Expr::Name { name, .. } => state.bindings[name].parse().unwrap(),
                            Expr::Int(value) => *value,
                            _ => unreachable!("not generated"),
                        };
                        vec![with(&(value(left) * value(right)).to_string())]
                    }
                    Item::Compute { .. } | Item::Draw { .. } => unreachable!("not generated"),
                    Item::Optional { arms, .. } => {
                        let mut out = vec![state.clone()];
                        out.extend(naive_arms(rules, arms, state));
                        out
                    }
                    Item::Tag { name, items } => {
                        let (start, place) = (state.text.len(), state.spans.len());
                        let mut out = naive_items(rules, items, vec![state]);
                        for state in &mut out {
                            state.spans.insert(place, (start, state.text.len(), name.clone()));
                        }
                        out
                    }
                }
            })
            .collect();
    }
    states
}

fn naive_arms(rules: &[Rule], arms: &[Arm], state: Naive) -> Vec<Naive> {
    arms.iter().flat_map(|arm| naive_items(rules, &arm.items, vec![state.clone()])).collect()
}

/// Items that call only rules after `rule`, and bindings that the first rule draws.
fn items(rule: usize, rules: usize, depth: u32) -> BoxedStrategy<Vec<Item>> {
    let name = |name: String| Item::Name { name, asks: Vec::new(), filter: None, at: 0 };
    let product = |right: Expr| Item::Compute {
        expr: Expr::Binary {
            op: Op::Mul,
            left: Box::new(Expr::Name { name: "n".into(), at: 0 }),
            right: Box::new(right),
            at: 0,
        },
        source: String::new(),
    };
    let draw =
        |name: &str, sampler: Sampler, hidden| Item::Draw { name: name.into(), sampler, hidden, filter: None, at: 0 };
    let mut choices = vec![
        "[a-c é{}()|<>/:#?\\\\\n\r\t,=\"]{1,6}".prop_map(Item::Text).boxed(),
        prop::sample::select(vec!["n", "w"]).prop_map(move |binding| name(binding.into())).boxed(),
        (-3i64..4).prop_map(move |value| product(Expr::Int(value))).boxed(),
        (-3i64..3, 0i64..5, 1u64..4, any::<bool>())
            .prop_map(move |(low, more, step, hidden)| {
                draw("n", Sampler::Range { of: Type::Int, low, high: low + more, step }, hidden)
            })
            .boxed(),
        (prop::collection::vec("[a-c,\\\\ ]{0,3}x", 1..4), any::<bool>())
            .prop_map(move |(options, hidden)| draw("w", Sampler::Choice(options), hidden))
            .boxed(),
    ];
    if rule + 1 < rules {
        choices.push((rule + 1..rules).prop_map(move |callee| name(format!("r{callee}"))).boxed());
    }
    if depth > 0 {
        let without = prop::option::of((1u64..9).prop_map(|tenths| Weight(tenths * Weight::ONE.0 / 10)));
        choices.push(
            (arms(rule, rules, depth - 1), without)
                .prop_map(|(arms, without)| Item::Optional { arms, without, at: 0 })
                .boxed(),
        );
        let tagged = ("[tu]", items(rule, rules, depth - 1));
        choices.push(tagged.prop_map(|(name, items)| Item::Tag { name, items }).boxed());
    }
    prop::collection::vec(prop::strategy::Union::new(choices), 1..4).boxed()
}

fn arms(rule: usize, rules: usize, depth: u32) -> BoxedStrategy<Vec<Arm>> {
    let weight = prop::option::of((1u64..9).prop_map(|tenths| Weight(tenths * Weight::ONE.0 / 10)));
    let arm =
        (items(rule, rules, depth), weight).prop_map(|(items, weight)| Arm { items, notes: Vec::new(), weight, at: 0 });
    prop::collection::vec(arm, 1..3).boxed()
}

pub(super) fn rules() -> impl Strategy<Value = Vec<Rule>> {
    (1usize..4).prop_flat_map(|n| {
        let all: Vec<_> = (0..n).map(|i| arms(i, n, 2)).collect();
        all.prop_map(|all| {
            let rule = |(i, arms)| Rule { name: format!("r{i}"), depth: None, arms, at: 0 };
            let mut rules: Vec<Rule> = all.into_iter().enumerate().map(rule).collect();
            for arm in &mut rules[0].arms {
                let int = Sampler::Range { of: Type::Int, low: 4, high: 5, step: 1 };
                arm.items.insert(0, Item::Draw { name: "n".into(), sampler: int, hidden: false, filter: None, at: 0 });
                let word = Sampler::Choice(vec!["word".into()]);
                arm.items.insert(0, Item::Draw { name: "w".into(), sampler: word, hidden: true, filter: None, at: 0 });
            }
            rules
        })
    })
}

/// Text made of what the language is made of.
fn almost_grammars() -> impl Strategy<Value = String> {
    let parts = [
        "a",
        "b",
        "rule",
        " = ",
        "=",
        "\n",
        "\r\n",
        " ",
        "|",
        "::",
        ":: 2",
        "(",
        ")",
        ")?",
        "{",
        "}",
        "{a}",
        "{b}",
        "{x}",
        "{x=int 1..3}",
        "{y=choice p, q}",
        "{=x+1}",
        "{=y+'z'}",
        "int",
        "choice",
        "..",
        "9",
        "-",
        "//",
        "%",
        "<",
        "<=",
        "<t>",
        "</t>",
        "\\",
        "\\n",
        "#",
        " # ",
        "[depth=3]",
        "[num=pl]",
        "[num]",
        "[g=x]",
        "[pl=ys]",
        "{a[num=pl]}",
        "{a|cap}",
        "{y|plural(x)}",
        "{b|a}",
        "{z=a}",
        "{!z=b[g=x]}",
        "{_l=int 1..2}",
        "{!_l=(x)}",
        "{=_l}",
        "{z=(x/2)}",
        "{f=float 0..1 step 0.25}",
        "{d=date 2024-02-28..2024-03-01}",
        "{t=choice true, false}",
        "{=f*x if t and d > d else round(f/x,2)}",
        "{=long(d)}",
        "{=upper(y)+str(x)}",
        "include \"x\"\n",
        "[",
        "]",
        "'",
        "\"",
        ",",
        "é",
        "\t",
        "\u{2028}",
    ];
    prop::collection::vec(prop::sample::select(parts.to_vec()), 0..40).prop_map(|parts| parts.concat())
}

fn survives(source: &str) -> std::result::Result<(), TestCaseError> {
    match Grammar::compile(source, None) {
        Err(error) => {
            if let Some((line, column)) = error.position() {
                let text = source.split('\n').nth(line - 1);
                prop_assert!(text.is_some_and(|text| column <= text.chars().count() + 1), "{}", error);
            }
        }
        Ok(g) => {
            let again = Grammar::compile(g.canonical(), None).map_err(|e| TestCaseError::fail(e.to_string()))?;
            prop_assert_eq!(again.canonical(), g.canonical());
            prop_assert_eq!(again.count(), g.count());
            for index in [BigUint::ZERO, g.count() - 1u8] {
                prop_assert_eq!(g.nth(&index).ok(), again.nth(&index).ok());
            }
            let _ = g.sample(&sampling(3, 1));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_derivation_is_what_a_naive_expansion_gives(rules in rules(), seed: u64) {
        let source = canonical(&rules);
        prop_assert_eq!(canonical(&include::load(&source, &Files::None).unwrap().1), source.clone());
        let g = grammar(&source);
        prop_assume!(*g.count() <= BigUint::from(2000u32));
        let expected = naive_arms(&rules, &rules[0].arms, Naive::default());
        prop_assert_eq!(g.count(), &BigUint::from(expected.len()));
        for (k, expected) in expected.iter().enumerate() {
            let found = g.nth(&k.into()).unwrap();
            prop_assert_eq!(&texts(&found)[0], &expected.text);
            let spans = &found.spans;
            let spans: Vec<(usize, usize, String)> = (0..spans.row.len())
                .map(|i| (spans.start[i] as usize, spans.end[i] as usize, g.tags()[spans.tag[i] as usize].clone()))
                .collect();
            prop_assert_eq!(&spans, &expected.spans);
            for (binding, column) in g.bindings().zip(&found.columns) {
                let value = match binding.of {
                    Type::Text => g.strings()[column.values[0] as usize].clone(),
                    _ => column.values[0].to_string(),
                };
                prop_assert_eq!(&value, &expected.bindings[&binding.name]);
            }
        }
        for law in [Law::Weights, Law::Uniform] {
            let sample = g.sample(&Sampling { law, ..sampling(40, seed) }).unwrap();
            for (text, index) in texts(&sample.expanded).iter().zip(sample.indices.unwrap()) {
                prop_assert_eq!(text, &expected[index as usize].text);
            }
        }
    }

    #[test]
    fn draws_do_not_depend_on_how_many_there_are(rules in rules(), seed: u64, n in 0usize..20, more in 0usize..20, shards in 1u64..5) {
        let g = grammar(&canonical(&rules));
        let how = Sampling { law: Law::Uniform, ..sampling(n + more, seed) };
        for how in [how, Sampling { law: Law::Weights, ..how }, Sampling { replace: false, rows: 1, ..how }] {
            let whole = g.sample(&how).unwrap();
            let short = g.sample(&Sampling { rows: n.min(how.rows), ..how }).unwrap();
            prop_assert_eq!(&whole.ids[..short.ids.len()], &short.ids);
            prop_assert_eq!(&texts(&whole.expanded)[..short.ids.len()], texts(&short.expanded));
            for r in 0..shards {
                let rows = (how.rows as u64).saturating_sub(r).div_ceil(shards) as usize;
                let part = g.sample(&Sampling { rows, shard: (r, shards), ..how }).unwrap();
                let chosen = |i: usize| r as usize + i * shards as usize;
                let expected: Vec<String> = (0..rows).map(|i| texts(&whole.expanded)[chosen(i)].clone()).collect();
                prop_assert_eq!(texts(&part.expanded), expected);
                prop_assert!((0..rows).all(|i| part.ids[i] == whole.ids[chosen(i)]));
            }
        }
    }

    #[test]
    fn without_replacement_every_derivation_comes_once(rules in rules(), seed: u64) {
        let g = grammar(&canonical(&rules));
        prop_assume!(*g.count() <= BigUint::from(2000u32));
        let n = usize::try_from(g.count()).unwrap();
        let how = Sampling { law: Law::Uniform, replace: false, ..sampling(n, seed) };
        let mut indices = g.sample(&how).unwrap().indices.unwrap();
        indices.sort_unstable();
        prop_assert!(indices.into_iter().eq(0..n as u64));
        let too_many = g.sample(&Sampling { rows: n + 1, ..how });
        prop_assert!(too_many.is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn any_text_compiles_or_is_refused(source in ".{0,60}") {
        survives(&source)?;
    }

    #[test]
    fn any_bytes_compile_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        survives(&String::from_utf8_lossy(&bytes))?;
    }

    #[test]
    fn any_mix_of_the_language_compiles_or_is_refused(source in almost_grammars()) {
        survives(&source)?;
        survives(&format!("a = {source}"))?;
    }
}

#[test]
fn threads_do_not_change_a_sample() {
    let g = grammar("x = {a=int 1..9} {y}( <t>{=a*a}</t>)?\ny = p :: 3 | q{b=choice r, s} :: 0.5");
    let n = 3 * GRAIN + 17;
    let whole = g.sample(&sampling(n, 11)).unwrap();
    let mut one: Option<Expanded<u8>> = None;
    let mut at = 0;
    for k in 0..n as u64 {
        let how = Sampling { rows: 1, shard: (k, u64::from(u32::MAX)), ..sampling(1, 11) };
        let row = g.sample(&how).unwrap().expanded;
        let range = at..at + row.rows.values.len();
        assert_eq!(&whole.expanded.rows.values[range.clone()], row.rows.values);
        at = range.end;
        match &mut one {
            Some(one) => one.append(row),
            None => one = Some(row),
        }
    }
    assert_eq!(Some(whole.expanded), one);
}
