import contextlib
import json
import textwrap
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import variegate as vg
from strategies import examples
from variegate import recipe as recipes
from variegate.errors import RecipeError

EXAMPLE = """\
# recipe.yaml
version: 1
seed: 7
sources:
  - {name: py, path: in.jsonl, text: text, id: id, license: PSF-2.0, kind: human}
stages:
  - augment: {variants: 3, ops: [{TokenDropout: {rate: 0.1}}, {KeyboardTypo: {rate: 0.05}}]}
  - dedup: {threshold: 0.8}
output: {format: parquet, rows_per_shard: 500}
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def test_the_example_loads(tmp_path):
    path = write(tmp_path, EXAMPLE)
    recipe = recipes.load(path)
    assert recipe.base == tmp_path
    assert recipe.seed == 7
    assert [stage.label for stage in recipe.stages] == ["augment", "dedup"]
    assert recipe.stages[0].keep_source is True
    assert recipe.sources[0].kind == "human"
    assert recipe.output.rows_per_shard == 500


def test_the_same_object_from_python(tmp_path):
    made = recipes.Recipe(
        version=1,
        seed=7,
        sources=[recipes.Source(name="py", path="in.jsonl", id="id", license="PSF-2.0", kind="human")],
        stages=[
            recipes.Augment(variants=3, ops=[vg.ops.TokenDropout(rate=0.1), {"KeyboardTypo": {"rate": 0.05}}]),
            recipes.Dedup(threshold=0.8),
        ],
        output=recipes.Output(rows_per_shard=500),
    )
    loaded = recipes.load(write(tmp_path, EXAMPLE))
    assert made == loaded
    assert made.hash() == loaded.hash()


def test_the_resolved_recipe_reads_back(tmp_path):
    recipe = recipes.load(write(tmp_path, EXAMPLE))
    again = recipes.loads(recipe.to_yaml())
    assert again == recipe
    assert again.hash() == recipe.hash()
    assert recipes.loads(EXAMPLE.replace("seed: 7", "seed: 8")).hash() != recipe.hash()


HEAD = "version: 1\nsources: [{name: a, path: a.jsonl}]\n"
REFUSED = {
    "unknown key": (
        HEAD + "ouput: {format: parquet}\n",
        "3:1: unknown key 'ouput' (did you mean 'output'?)",
    ),
    "unknown key of a source": (
        "version: 1\nsources:\n  - name: a\n    path: a.jsonl\n    licence: MIT\n",
        "5:5: unknown key 'licence' (did you mean 'license'?)",
    ),
    "unknown key of a stage": (
        HEAD + "stages:\n  - dedup: {treshold: 0.8}\n",
        "4:13: unknown key 'treshold' (did you mean 'threshold'?)",
    ),
    "unknown stage": (
        HEAD + "stages:\n  - dedupe: {}\n",
        "4:5: there is no stage 'dedupe' (did you mean 'dedup'?)",
    ),
    "two stages in one item": (
        HEAD + "stages:\n  - {dedup: {}, measure: {}}\n",
        "4:5: a stage must be one name with its parameters, like dedup: {threshold: 0.8}",
    ),
    "rate": (
        HEAD + "stages:\n  - augment: {ops: [{TokenDropout: {rate: 1.5}}]}\n",
        "4:21: TokenDropout: rate must lie in [0, 1] (it is 1.5)",
    ),
    "labels": (
        HEAD + "stages:\n  - augment: {ops: [{Sometimes: {op: {MaskedLM: {mask_id: 4, vocab_size: 100}}, p: 0.5}}]}\n",
        "4:21: MaskedLM makes labels, which a text cannot hold: use it in a loader",
    ),
    "targets": (
        HEAD + "stages:\n  - augment: {ops: [{TextInfilling: {mask_id: 4}}]}\n",
        "4:21: TextInfilling makes targets, which a text cannot hold: use it in a loader",
    ),
    "variants": (
        HEAD + "stages:\n  - paraphrase: {variants: 3, candidates: 2}\n",
        "4:5: candidates must be at least variants: 2 cannot give 3",
    ),
    "share": (
        HEAD + "stages:\n  - paraphrase: {rate: 1.5}\n",
        "4:18: 'rate' must be less than or equal to 1, not 1.5",
    ),
    "threshold": (
        HEAD + "stages:\n  - dedup: {threshold: 1.5}\n",
        "4:13: 'threshold' must be less than or equal to 1, not 1.5",
    ),
    "evaluation": (HEAD + "stages:\n  - decontaminate\n", "4:5: 'evaluation' is missing"),
    "overlap": (
        HEAD + "stages:\n  - overlap: {protected: a.txt, ngarm: 8}\n",
        "4:33: unknown key 'ngarm' (did you mean 'ngram'?)",
    ),
    "type": (
        "version: 1\nseed: 'x'\nsources: [{name: a, path: a.jsonl}]\n",
        "2:1: 'seed' must be a valid integer, not 'x'",
    ),
    "kind": (
        "version: 1\nsources: [{name: a, path: a.jsonl, kind: humann}]\n",
        "2:36: 'kind' must be 'human', 'unknown', 'augmented', 'templated' or 'generated', not 'humann' "
        "(did you mean 'human'?)",
    ),
    "missing": ("version: 1\nsources: [{name: a}]\n", "2:11: 'path' is missing"),
    "nothing to do": ("version: 1\n", "1:1: a recipe needs a source or a templates stage"),
    "version missing": ("seed: 1\n", "1:1: 'version' is missing: write 'version: 1', which this release reads"),
    "version": ("seed: 1\nversion: 2\n", "2:1: version is 2: write 'version: 1', which this release reads"),
    "license": (
        "version: 1\nsources: [{name: a, path: a.jsonl, license: MIT AND}]\n",
        "2:36: 'MIT AND' is not an SPDX expression: it ends too early",
    ),
    "two sources of a name": (
        "version: 1\nsources:\n  - {name: a, path: a}\n  - {name: a, path: b}\n",
        "4:5: two sources are called 'a'",
    ),
    "two stages of a name": (
        HEAD + "stages: [{dedup: {}}, {dedup: {}}]\n",
        "3:23: two stages are called 'dedup': give one of them a name",
    ),
    "reference": (
        "version: 1\nsources: [{name: wiki, path: a}]\nstages:\n  - measure: {reference: wikk}\n",
        "4:15: there is no source 'wikk' (did you mean 'wiki'?)",
    ),
    "keep": (
        "version: 1\nsources: [{name: a, path: a, keep: [provenance]}]\n",
        "2:11: keep must not name 'provenance': the output has that column",
    ),
    "grammar": (
        "version: 1\nstages:\n  - templates: {count: 3}\n",
        "3:5: templates needs either grammar (text) or path (a file)",
    ),
    "key twice": ("version: 1\nseed: 1\nseed: 2\n", "3:1: key 'seed' is given twice (first in line 2)"),
    "not a mapping": ("- 1\n", "1:1: a recipe must be a mapping of sections"),
    "empty": ("# nothing\n", "the recipe is empty"),
    "yaml": ("version: 1\nseed: [1\n", "3:1: not valid YAML: expected ',' or ']', but got '<stream end>'"),
    "environment": (
        "version: 1\nsources:\n  - {name: a, path: '${env:VARIEGATE_NOT_SET}/a.jsonl'}\n",
        "3:21: environment variable VARIEGATE_NOT_SET is not set",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_said_with_its_place(case, tmp_path):
    text, message = REFUSED[case]
    with pytest.raises(RecipeError) as caught:
        recipes.loads(text)
    assert str(caught.value) == message
    path = write(tmp_path, text)
    with pytest.raises(RecipeError) as caught:
        recipes.load(path)
    assert str(caught.value) == f"{path}{':' if message[0].isdigit() else ': '}{message}"
    assert caught.value.file == str(path)


def test_a_recipe_that_cannot_be_read(tmp_path):
    with pytest.raises(RecipeError) as caught:
        recipes.load(tmp_path / "none.yaml")
    assert str(caught.value) == f"{tmp_path / 'none.yaml'}: cannot read the recipe: No such file or directory"
    (tmp_path / "latin.yaml").write_bytes(b"seed: \xe9")
    with pytest.raises(RecipeError) as caught:
        recipes.load(tmp_path / "latin.yaml")
    assert str(caught.value) == f"{tmp_path / 'latin.yaml'}: cannot read the recipe: not UTF-8 at byte 7"


def test_environment_variables_take_part(monkeypatch):
    monkeypatch.setenv("VARIEGATE_SEED", "12")
    monkeypatch.setenv("VARIEGATE_WHERE", "data")
    text = "version: 1\nseed: ${env:VARIEGATE_SEED}\nsources: [{name: a, path: '${env:VARIEGATE_WHERE}/a.jsonl'}]\n"
    recipe = recipes.loads(text)
    assert recipe.seed == 12
    assert recipe.sources[0].path == "data/a.jsonl"


def test_the_json_schema_describes_the_yaml_form():
    schema = recipes.Recipe.json_schema()
    json.dumps(schema)
    assert schema["additionalProperties"] is False
    forms = {form["required"][0]: form for form in schema["properties"]["stages"]["items"]["oneOf"]}
    assert sorted(forms) == ["augment", "decontaminate", "dedup", "measure", "overlap", "paraphrase", "templates"]
    assert "stage" not in schema["$defs"]["Dedup"]["properties"]
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.validate(yaml.safe_load(EXAMPLE), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(EXAMPLE.replace("threshold", "treshold")), schema)


@given(st.text(alphabet="version: 1\nsourc{}[]-,'\"&*!|>#%@`${env:A}", max_size=60))
@examples(300)
def test_any_text_is_a_recipe_or_refused(text):
    with contextlib.suppress(RecipeError):
        recipes.loads(text)
