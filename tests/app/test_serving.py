"""Another size of the subject answers live: it is compared first, foreseen in memory, and named on the page."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from app import subject_sessions
from app.catalogue import Catalogue, open_catalogue
from app.launching import tell_plans
from app.serving import Answering, Serving
from app.serving_plans import LEAST_ROWS, ROWS, demand_of, make_room
from app.steer_answers import COLUMNS, DoseFrame, doses
from app.steer_setup import SteerRow, SteerSetup
from app.subject_sessions import Sessions
from app.tabs import about, steer
from backend.errors import DependencyMissing, SubjectError, SubjectMismatch, SubjectMissing
from backend.memory_plan import Precision, memory_plan
from backend.model_shapes import shape_of
from backend.models import model_fingerprint
from precompute.shrunken import dinov2
from tests.builders_app import SUBJECT_PROMPT, build_steerable_atlas, edit_json
from tests.builders_atlas import BagEncoder
from tests.builders_sizes import save_other_size
from tests.builders_subject import save_tiny_subject


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``small`` (the atlas's own subject, with the atlas's grid), ``large`` around the same tower, and the atlas."""
    folder = tmp_path_factory.mktemp("serving")
    small = save_tiny_subject(folder / "small", patch_px=2)
    save_other_size(folder / "large", small)
    save_tiny_subject(folder / "stranger", seed=7, patch_px=2)
    build_steerable_atlas(folder / "atlas", small, n_features=14)
    build_steerable_atlas(folder / "orphan", None, n_features=14)
    return folder


def served(places: Path, atlas: str = "atlas", **serving: Any) -> Catalogue:
    return open_catalogue([places / atlas], encoder=BagEncoder(), serving=Serving(**serving))


def told(catalogue: Catalogue, **serving: Any) -> list[str]:
    lines: list[str] = []
    tell_plans(catalogue, Serving(**serving), lines.append)
    return lines


def test_by_default_the_own_subject_answers_and_nothing_is_told(places: Path) -> None:
    catalogue = served(places)
    assert catalogue.default.answering == Answering() and told(catalogue) == []
    tab = cast(Any, steer._who(catalogue.default))
    assert tab["visible"] is False


def test_another_size_answers_for_the_atlas_on_every_device(places: Path) -> None:
    large = str(places / "large")
    services = served(places, subject=large, devices=("cpu", "cpu")).default
    assert services.answering == Answering(other=large)
    seen = []

    def job(session: Any, should_stop: Any) -> Any:
        seen.append(session.subject)
        yield "answered"

    assert "answered" in list(services.worker.run("a", job))
    assert seen[0].d_text == 64 and seen[0].card.name == "large"
    assert [device.name for device in services.worker.workers._devices] == ["cpu", "cpu"]


def test_the_page_says_who_answers_and_at_which_precision(places: Path) -> None:
    large = str(places / "large")
    services = served(places, subject=large, quantize="int4").default
    line = steer._who(services)
    assert line["visible"] and f"{large} answers here, its language model in 4 bits (NF4" in line["value"]
    assert "its words may differ" in line["value"]
    assert "Live answers" in str(about.page(services)) and "in 4 bits" in str(about.page(services))
    assert services.answering.phrase("gemma") == f"{large} in int4"
    assert Answering(quantize="int8").phrase("gemma") == "gemma in int8"
    assert "gemma answers here, not quantised" in Answering().sentence("gemma")


def test_another_tower_is_refused_by_its_first_tensor(places: Path) -> None:
    with pytest.raises(SubjectMismatch, match=r"tensor embeddings\.\S+ differs"):
        served(places, subject=str(places / "stranger"))


def test_a_model_that_cannot_speak_answers_for_nobody(places: Path, tmp_path: Path) -> None:
    with pytest.raises(SubjectError, match="dinov2 is an image encoder without a language model"):
        served(places, subject=str(dinov2.build(tmp_path / "dinov2")))


def test_a_subject_that_is_not_here_is_refused_at_once(places: Path) -> None:
    with pytest.raises(SubjectMissing, match="google/gemma-3-27b-it is not on this machine"):
        served(places, subject="google/gemma-3-27b-it")


def test_without_the_own_subject_the_page_says_that_nothing_could_be_compared(places: Path) -> None:
    services = served(places, "orphan", subject=str(places / "large")).default
    assert "could not be compared" in services.answering.caveat
    assert "could not be compared" in steer._who(services)["value"]


def test_without_the_own_subject_its_very_files_are_still_known(places: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(places / "small", tmp_path / "moved"))
    shutil.copytree(places / "orphan", tmp_path / "atlas")
    edit_json(
        tmp_path / "atlas", "meta.json", lambda meta: meta["subject"].update(fingerprint=model_fingerprint(moved))
    )
    assert served(tmp_path, subject=str(moved)).default.answering == Answering()


def explained_by(places: Path, folder: Path, explainer: Path, **named: Any) -> Path:
    """A copy of the atlas of ``small`` whose features ``explainer`` put into words, steered along them."""

    def change(meta: dict[str, Any]) -> None:
        meta["explainer"] = {
            "name": explainer.name,
            "path": str(explainer),
            "repository": None,
            "steers": True,
            **named,
        }

    shutil.copytree(places / "atlas", folder)
    edit_json(folder, "meta.json", change)
    return folder


def test_an_explainer_that_steers_is_the_atlass_own_and_others_are_compared_with_it(
    places: Path, tmp_path: Path
) -> None:
    explained_by(places, tmp_path / "atlas", places / "large")
    own = served(tmp_path).default
    assert (own.answering, own.steered_name) == (Answering(), "large")
    session: Any = Sessions().load(own.atlas, "cpu")
    assert session.subject.card.name == "large"
    assert served(tmp_path, subject=str(places / "large")).default.answering == Answering()
    assert served(tmp_path, subject=str(places / "small")).default.answering == Answering(other=str(places / "small"))
    with pytest.raises(SubjectMismatch, match=r"stranger does not have the vision tower of \S*large: "):
        served(tmp_path, subject=str(places / "stranger"))


def test_an_explainer_that_is_not_here_is_known_by_its_files_and_its_tower_by_the_subjects(
    places: Path, tmp_path: Path
) -> None:
    fingerprint = model_fingerprint(places / "large")
    explained_by(places, tmp_path / "atlas", tmp_path / "gone", fingerprint=fingerprint)
    assert served(tmp_path, subject=str(places / "large")).default.answering == Answering()
    small = served(tmp_path, subject=str(places / "small")).default.answering
    assert small == Answering(other=str(places / "small"))
    with pytest.raises(SubjectMismatch, match=r"stranger does not have the vision tower of \S*small: "):
        served(tmp_path, subject=str(places / "stranger"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image_size": 16}, "patches 64 where its SAE needs 256"),
        ({"hidden_size": 64}, "width 64 where its SAE needs 32"),
        ({"num_hidden_layers": 1}, "its tower has 1 blocks, and the hook point lies after block 1"),
    ],
)
def test_without_the_own_subject_shapes_are_compared(places: Path, tmp_path: Path, change: Any, words: str) -> None:
    other = Path(shutil.copytree(places / "large", tmp_path / "other"))
    config = json.loads((other / "config.json").read_text(encoding="utf-8"))
    config["vision_config"] |= change
    (other / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(SubjectMismatch, match=words):
        served(places, "orphan", subject=str(other))


# --------------------------------------------------------------------------------------------------------- memory


def test_the_plan_is_told_for_each_device_before_anything_is_loaded(places: Path) -> None:
    options: Any = {"subject": str(places / "large"), "devices": ("cpu", "cpu:0")}
    catalogue = served(places, **options)
    who, first, second = told(catalogue, **options)
    assert "answers here, not quantised" in who
    assert first.startswith(f"Memory on cpu: {places / 'large'} (float32): vision tower 0.1 + language model 0.")
    assert second.startswith("Memory on cpu:0: ") and second.endswith(" MB free")
    assert not catalogue.default.worker.ready


def test_what_does_not_fit_is_refused_before_loading(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.serving_plans.free_bytes", lambda device: 1000.0)
    catalogue = served(places, devices=("cpu",))
    with pytest.raises(SubjectError, match=r"Not enough memory on cpu: .* Name a smaller model with --subject"):
        told(catalogue, devices=("cpu",))
    with pytest.raises(SubjectError, match="Not enough memory"):
        Sessions().load(catalogue.default.atlas, "cpu")


def test_an_image_encoder_is_planned_without_words_and_loaded(places: Path, tmp_path: Path) -> None:
    encoder = dinov2.build(tmp_path / "dinov2")

    def change(meta: dict[str, Any]) -> None:
        meta["subject"] = {"name": "dinov2", "path": str(encoder), "repository": None, "answers": False}

    shutil.copytree(places / "atlas", tmp_path / "atlas")
    edit_json(tmp_path / "atlas", "meta.json", change)
    options: Any = {"quantize": "int8", "devices": ("cpu",)}
    services = served(tmp_path, **options).default
    plan = make_room(services.atlas, Serving(**options), "cpu", lambda: False)
    assert plan is not None and (plan.language, plan.cache, plan.precision.quantize, plan.rows) == (0, 0, None, 1)
    session: Any = Sessions(Serving(**options)).load(services.atlas, "cpu")
    assert session.tower.card.name == "dinov2"
    assert (
        "without a language model" in str(about.page(services))
        and services.live_answers in steer._who(services)["value"]
    )


def test_strengths_that_do_not_fit_at_once_come_in_batches_that_do(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: Any = {"devices": ("cpu",)}
    services = served(places, **options).default
    setup = SteerSetup(rows=(SteerRow(feature=2, strength=30.0),), prompt=SUBJECT_PROMPT)
    whole = list(doses(services, "a", setup))[-1]
    room, least = (needed(services.atlas, rows) for rows in (ROWS, LEAST_ROWS))
    monkeypatch.setattr("app.serving_plans.free_bytes", lambda device: (room + least) / 2)
    catalogue = served(places, **options)
    plan = make_room(catalogue.default.atlas, Serving(**options), "cpu", lambda: False)
    assert plan is not None and LEAST_ROWS < plan.rows < ROWS
    assert told(catalogue, **options)[1].endswith(f"; the 21 answers of all strengths come {plan.rows} at a time")
    parted: Any = list(doses(catalogue.default, "a", setup))[-1]
    assert isinstance(whole, DoseFrame)
    assert (parted.unsteered, parted.steered, parted.random) == (whole.unsteered, whole.steered, whole.random)
    assert parted.p_own == pytest.approx(whole.p_own) and parted.p_unsteered == pytest.approx(whole.p_unsteered)
    monkeypatch.setattr("app.serving_plans.free_bytes", lambda device: least)
    assert "come 4 at a time" in told(catalogue, **options)[1]
    monkeypatch.setattr("app.serving_plans.free_bytes", lambda device: least - 1)
    with pytest.raises(SubjectError, match="keys and values of 4 answers"):
        told(catalogue, **options)


def needed(atlas: Any, rows: int) -> float:
    """Bytes of the atlas's own subject with batches of so many rows."""
    place = Serving().place(atlas)
    return memory_plan(
        shape_of(str(place), Path(place)),
        subject="own",
        device="cpu",
        precision=Precision(dtype="float32"),
        demand=demand_of(atlas, rows),
        free=None,
    ).needed


def test_the_least_that_must_fit_are_the_columns() -> None:
    assert len(COLUMNS) == LEAST_ROWS


def test_other_models_make_room_for_one_that_does_not_fit_beside_them(places: Path, tmp_path: Path) -> None:
    first = served(places).default.atlas
    stranger = build_steerable_atlas(tmp_path / "stranger", places / "stranger", n_features=14)
    second = open_catalogue([stranger], encoder=BagEncoder()).default.atlas
    sessions = Sessions()
    kept = sessions.load(first, "cpu")
    let_go = [True, False]
    frees = iter([1000.0, 1e12])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.serving_plans.free_bytes", lambda device: next(frees))
        sessions.load(second, "cpu")
    assert len(sessions._subjects) == 1
    assert sessions.load(first, "cpu") is not kept
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.serving_plans.free_bytes", lambda device: 1000.0)
        with pytest.raises(SubjectError, match="Not enough memory"):
            make_room(first, Serving(), "cpu", lambda: let_go.pop(0))
    assert let_go == []


def test_a_quantised_subject_is_loaded_as_such(places: Path) -> None:
    pytest.importorskip("bitsandbytes")
    options: Any = {"quantize": "int8", "devices": ("cpu",)}
    catalogue = served(places, **options)
    assert "(int8, vision tower in float32)" in told(catalogue, **options)[1]
    session: Any = Sessions(Serving(**options)).load(catalogue.default.atlas, "cpu")
    layer = session.subject.model.model.language_model.layers[0].mlp.up_proj
    assert layer.weight.dtype == torch.int8
    assert len(session.answers([[], []], "What is shown in the image?", max_new_tokens=2)) == 2


def test_an_absent_library_is_said_before_anything_is_loaded(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(DependencyMissing, match=r"iconoscope\[paper\]"):
        told(served(places, quantize="int4"), quantize="int4", devices=("cpu",))


def test_the_demand_is_that_of_the_largest_batch(places: Path) -> None:
    services = served(places).default
    assert demand_of(services.atlas).sae_bytes == (services.atlas.sae_dir / "sae_weights.safetensors").stat().st_size
    frame = DoseFrame()
    assert 1 + len(frame.steered) + len(frame.random) == ROWS


def test_models_compute_in_bfloat16_on_a_gpu_only() -> None:
    assert [subject_sessions.dtype_on(one) for one in ("cuda:1", "cuda", "cpu", "mps")] == [
        "bfloat16",
        "bfloat16",
        "float32",
        "float32",
    ]
