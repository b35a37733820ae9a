import json

from tests.support.random_models import Model, draw_models


def test_models_are_drawn_again_from_their_seed() -> None:
    assert draw_models(7, 20) == draw_models(7, 20)
    assert draw_models(7, 20) != draw_models(8, 20)


def test_models_of_some_seeds_have_every_form() -> None:
    models = [model for seed in range(20) for model in draw_models(seed, 20)]
    files = "\n".join(model.file() for model in models)
    assert {model.name.partition("_")[2] for model in models} >= {
        "whole",
        "self_joined",
        "anti_joined",
        "set_operation",
    }
    assert max(model.depth for model in models) == 3
    assert all(not model.unique or model.key for model in models)
    for form in (
        "grain='",
        "grain=['",
        "grain={'",
        ": {'",
        "touched={",
        "unique_key=",
        "not exists",
        "is null\n",
        "except",
        "over (partition by",
        "json_agg",
        "count(distinct",
        "having",
        "union all",
        "full join",
        "not in (select",
    ):
        assert form in files, form


def test_model_reads_only_models_before_it() -> None:
    seen: set[str] = set()
    for model in draw_models(3, 24):
        assert set(model.upstreams) <= seen
        assert bool(model.upstreams) != bool(model.dataset)
        seen.add(model.name)


def test_config_of_model_has_the_shortest_form_of_its_grain() -> None:
    def config(grain: dict[str, dict[str, str]]) -> str:
        return Model("m", "select", {}, grain=grain).file().splitlines()[1].strip()

    assert config({"a": {"x": "a", "y": "a"}}) == "grain='a',"
    assert config({"a": {"x": "a"}, "b": {"x": "b"}}) == "grain=['a', 'b'],"
    assert config({"a": {"x": "a % 3", "y": "a % 3"}}) == "grain={'a': 'a % 3'},"
    assert (
        config({"a": {"x": "a", "y": "b"}})
        == "grain={'a': " + json.dumps({"x": "a", "y": "b"}).replace('"', "'") + "},"
    )


def test_refs_of_touched_are_left_to_the_build() -> None:
    """While dbt parses a config, ref() would return the model itself."""
    select = "select x.a from changed, {{ ref('x') }} as x"
    model = Model("m", "select", {}, grain={"a": {"x": "a"}}, touched={"y": select})
    assert f"touched={{'y': \"{select}\"}}," in model.file()
