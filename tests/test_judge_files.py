"""What judges need on this machine: found, hashed once, and all that is missing named at once; and what they read."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from backend import weights
from backend.errors import DependencyMissing, RecipeError, SubjectMissing
from backend.text_encoders import SentenceTransformerEncoder, load_text_encoder
from backend.weights import cached_repository, file_hash, files_fingerprint, missing_files
from precompute.judges import missing_judges, open_judges, paper
from precompute.judges._noun_phrases import MAX_PHRASES, MAX_WORDS, noun_phrases
from precompute.recipe import JudgesSection, load_recipe, parse_recipe
from tests.builders_judges import judges_recipe, open_paper
from tests.toy_pipeline import RECIPE

PAPER_MODELS = {"boxes": None, "masks": None, "generator_model": None, "clip": "timm/vit_large_patch14_clip_224.openai"}
REPOSITORIES = [
    "stabilityai/stable-diffusion-3.5-medium",
    "IDEA-Research/grounding-dino-base",
    "facebook/sam2.1-hiera-large",
    "timm/vit_large_patch14_clip_224.openai",
    "sentence-transformers/all-mpnet-base-v2",
]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hugging Face cache."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    load_text_encoder.cache_clear()
    return tmp_path / "hub"


def put(hub: Path, repository: str, files: dict[str, bytes]) -> Path:
    """Files of a repository as the Hub's client lays them: links into a folder of blobs named by their SHA-256."""
    root = hub / f"models--{repository.replace('/', '--')}"
    snapshot = root / "snapshots" / "c0ffee"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text("c0ffee")
    for name, content in files.items():
        blob = root / "blobs" / hashlib.sha256(content).hexdigest()
        blob.parent.mkdir(exist_ok=True)
        blob.write_bytes(content)
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).symlink_to(blob)
    return snapshot


# --------------------------------------------------------------------------------------------------------- missing


def test_all_that_is_missing_is_named_at_once(hub: Path) -> None:
    recipe = judges_recipe(**PAPER_MODELS, text_encoder="all-mpnet-base-v2")
    missing = missing_judges(recipe)
    assert [one.name for one in missing] == REPOSITORIES
    for one in missing:
        assert one.licence_page == f"https://huggingface.co/{one.name}"
        assert f"hf download {one.name}" in one.message and f"at {one.licence_page} and" in one.message
    with pytest.raises(SubjectMissing) as caught:
        open_judges(recipe)
    for repository in REPOSITORIES[:4]:
        assert f"https://huggingface.co/{repository}" in str(caught.value)
    assert missing_judges(judges_recipe(**PAPER_MODELS, segmenter="sam3"))[1].name == "facebook/sam3"


def test_the_shipped_recipes_of_the_paper_need_these_repositories(hub: Path) -> None:
    """openai/clip-vit-large-patch14 has no files of open_clip: with it nothing that is fetched would do."""
    for name in ("gemma3-4b-mid", "gemma3-27b-late", "internvl3-14b-mid"):
        assert [one.name for one in missing_judges(load_recipe(name))] == REPOSITORIES


def test_absent_packages_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    open_paper()  # the weights are there
    paper._open.cache_clear()
    monkeypatch.setattr(paper, "find_spec", lambda name: None)
    assert [one.name for one in missing_judges(judges_recipe())] == ["diffusers", "sam2", "open_clip"]
    with pytest.raises(DependencyMissing, match=r'diffusers: pip install "iconoscope\[paper\]"(?s:.)*sam2'):
        open_judges(judges_recipe())


def test_nothing_is_missing_where_everything_is_there() -> None:
    open_paper()
    assert missing_judges(judges_recipe()) == []


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    open_paper()
    (tmp_path / "config.json").write_text("{}")
    (found,) = missing_judges(judges_recipe(boxes=str(tmp_path)))
    assert found.part == "segmenter: boxes" and found.licence_page is None
    assert str(tmp_path) in found.message and "*.safetensors" in found.message


def test_an_interrupted_download_is_named(hub: Path) -> None:
    index = json.dumps({"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}).encode()
    files = {"config.json": b"{}", "model.safetensors.index.json": index, "model-1-of-2.safetensors": b"1"}
    snapshot = put(hub, "some/model", files)
    with pytest.raises(SubjectMissing, match=r"only partly on this machine: run `hf download some/model` .*2-of-2"):
        cached_repository("some/model", ("*",))
    (snapshot / "model-2-of-2.safetensors").write_bytes(b"2")
    assert cached_repository("some/model", ("*",)) == snapshot
    assert missing_files(snapshot, ("config.json", "*.txt|*.model")) == ["*.txt|*.model"]


@pytest.mark.parametrize(
    ("index", "problem"),
    [
        (b"{", "cannot be read as JSON"),
        (b"\xff\xfe", "cannot be read as JSON"),
        (b"[]", "has no weight_map"),
        (b"{}", "has no weight_map"),
        (b'{"weight_map": ["a"]}', "has no weight_map"),
        (b'{"weight_map": {"a": 1}}', "has no weight_map"),
        (b'{"weight_map": {"a": 1, "b": "c.safetensors"}}', "has no weight_map"),
        (b'{"weight_map": {"a": "../other/c.safetensors"}}', "'../other/c.safetensors', which is outside"),
        (b'{"weight_map": {"a": "/c.safetensors"}}', "'/c.safetensors', which is outside"),
    ],
)
def test_an_index_of_shards_that_is_none_is_named_with_the_cure(hub: Path, index: bytes, problem: str) -> None:
    put(hub, "some/model", {"config.json": b"{}", "model.safetensors.index.json": index})
    told = rf"model\.safetensors\.index\.json does not say .*{re.escape(problem)}.*`hf download --force-download`"
    with pytest.raises(SubjectMissing, match=told):
        cached_repository("some/model", ("*",))


def test_a_gated_repository_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError

    refusal: Any = SimpleNamespace(status_code=403, headers={}, request=None)

    def refuse(*_: Any, **__: Any) -> str:
        raise GatedRepoError("403", response=refusal)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(SubjectMissing, match=r"facebook/sam3 is gated: accept its licence at https://.*auth login"):
        cached_repository("facebook/sam3", ("*",), allow_download=True)


# ---------------------------------------------------------------------------------------------------------- hashes


def test_a_hash_is_remembered_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ICONOSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(weights, "REMEMBERED_BYTES", 1)
    read: list[Path] = []
    compute = weights._computed_hash
    monkeypatch.setattr(weights, "_computed_hash", lambda path: read.append(path) or compute(path))
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"weights")
    expected = hashlib.sha256(b"weights").hexdigest()
    assert [file_hash(file), file_hash(file)] == [expected] * 2 and len(read) == 1
    file.write_bytes(b"WEIGHTS")
    os.utime(file, ns=(1, 1))
    assert file_hash(file) == hashlib.sha256(b"WEIGHTS").hexdigest() and len(read) == 2
    for remembered in (tmp_path / "cache" / "hashes").iterdir():
        remembered.write_text("torn")
    assert file_hash(file) == hashlib.sha256(b"WEIGHTS").hexdigest() and len(read) == 3
    monkeypatch.setenv("ICONOSCOPE_CACHE", str(file))  # a file where the folder should be
    assert file_hash(file) == hashlib.sha256(b"WEIGHTS").hexdigest() and len(read) == 4


def test_a_folder_and_a_snapshot_of_the_hub_have_one_fingerprint(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"config.json": b"{}", "model.safetensors": b"weights", "vae/model.safetensors": b"more"}
    folder = tmp_path / "folder"
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    patterns = ("*.json", "*.safetensors", "*/*.safetensors")
    expected = files_fingerprint(folder, patterns)
    snapshot = put(hub, "some/model", files)
    monkeypatch.setattr(weights, "_computed_hash", lambda path: pytest.fail(f"{path} was read: its name is its hash"))
    assert files_fingerprint(snapshot, patterns) == expected
    assert files_fingerprint(snapshot, patterns[:2]) != expected


# --------------------------------------------------------------------------------------------------- noun phrases


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("A brown dog with floppy ears, sitting on the grass.", ("brown dog", "floppy ears", "grass")),
        ("Pattern of vertical stripes, often found on fabrics.", ("vertical stripes", "fabrics")),
        ("The presence of spherical shapes, such as wheels or balls", ("spherical shapes", "wheels", "balls")),
        ("Close-up of a bird's eye and beak", ("bird's eye", "beak")),
        ("high-level concept of motion blur", ("motion blur",)),
        ("red car; Red car. RED CAR", ("red car",)),
        ("abstract pattern", ("abstract pattern",)),
        ("text - letters / numbers", ("text", "letters", "numbers")),
        ("a T-shirt", ("t-shirt",)),
        ("it is", ()),
        ("?!", ()),
        ("", ()),
    ],
)  # fmt: skip
def test_noun_phrases(text: str, phrases: tuple[str, ...]) -> None:
    assert noun_phrases(text) == phrases


def test_long_texts_give_few_short_phrases() -> None:
    listed = noun_phrases(", ".join(f"thing{index}" for index in range(40)))
    assert listed == tuple(f"thing{index}" for index in range(MAX_PHRASES))
    (run,) = noun_phrases("very " + " ".join(f"word{index}" for index in range(40)))
    assert run.split() == [f"word{index}" for index in range(40 - MAX_WORDS, 40)]


# --------------------------------------------------------------------------------------------------------- recipes


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "paper"}, "kind paper needs a generator and a segmenter"),
        ({"box_threshold": 1.5}, "box_threshold must lie between 0 and 1"),
        ({"generator_prompt": "A picture"}, r"generator_prompt must hold \{text\}"),
        ({"generator_guidance": -1.0}, "generator_guidance must be 0 or greater"),
        ({"image_px": 0}, "image_px must be greater than 0"),
        ({"mask_choice": "best"}, r"judges\.mask_choice is 'best'; it must be one of union, first"),
        ({"clip_crop": "left"}, r"judges\.clip_crop is 'left'; it must be one of whole, centre"),
    ],
)
def test_a_wrong_field_of_the_judges_is_named(fields: dict[str, Any], message: str) -> None:
    section = {**RECIPE["judges"], **fields}
    with pytest.raises(RecipeError, match=message):
        parse_recipe({**RECIPE, "judges": section}, "toy")


def test_the_defaults_are_the_papers_settings() -> None:
    section = JudgesSection(kind="paper", clip="x", generator="g", segmenter="s")
    assert (section.generator_steps, section.generator_guidance, section.image_px) == (30, 7.5, 512)
    assert section.generator_prompt == "A realistic image of {text}" and section.box_threshold == 0.3


# --------------------------------------------------------------------------------------------------- text encoders


@pytest.fixture(scope="module")
def sentence_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random MPNet as sentence-transformers saves all-mpnet-base-v2: transformer, mean pooling, unit norm."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules
    from transformers import MPNetConfig, MPNetModel, MPNetTokenizer

    words = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "[UNK]", "a", "cat", "striped", "pattern", "."]
    folder = tmp_path_factory.mktemp("sentences")
    config = MPNetConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    MPNetModel(config).save_pretrained(folder / "plain")
    MPNetTokenizer(vocab={word: index for index, word in enumerate(words)}).save_pretrained(folder / "plain")
    transformer = modules.Transformer(str(folder / "plain"), max_seq_length=32)
    pooling = modules.Pooling(transformer.get_embedding_dimension(), "mean")
    parts: list[Any] = [transformer, pooling, modules.Normalize()]
    SentenceTransformer(modules=parts, device="cpu").save(str(folder / "model"))
    return folder / "model"


@pytest.mark.slow
def test_a_sentence_model_is_read_from_a_folder(sentence_model: Path, tmp_path: Path) -> None:
    encoder = load_text_encoder(str(sentence_model))
    assert isinstance(encoder, SentenceTransformerEncoder)
    rows = encoder.encode(["a cat", "striped pattern", "a cat"])
    assert rows.shape == (3, 16) and rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(rows[0], rows[2], atol=1e-6)
    assert np.abs(rows[0] - rows[1]).max() > 1e-3
    assert encoder.encode([]).shape == (0, 16)
    before = encoder.fingerprint
    moved = sentence_model.rename(tmp_path / "moved")
    assert load_text_encoder(str(moved)).fingerprint == before
    (moved / "modules.json").rename(tmp_path / "modules.json")
    load_text_encoder.cache_clear()
    with pytest.raises(SubjectMissing, match=r"there is no text encoder in .*missing modules\.json"):
        load_text_encoder(str(moved))


def test_a_sentence_model_that_is_not_here_is_named(hub: Path) -> None:
    for name in ("all-mpnet-base-v2", "sentence-transformers/all-mpnet-base-v2"):
        with pytest.raises(SubjectMissing, match="hf download sentence-transformers/all-mpnet-base-v2"):
            load_text_encoder(name)
