"""Search: by meaning, by words, both; every hit once, with its reason."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.artifact_writer import ArtifactWriter
from backend.artifacts import Artifact
from backend.errors import ArtifactDamaged, DependencyMissing, EmptyQuery, RecipeError, UnknownFeature
from backend.feature_store import FeatureStore
from backend.lexical import LexicalIndex, has_words, stem, terms
from backend.search import LIKE_KINDS, Search
from backend.text_encoders import PackagedTextEncoder, load_text_encoder
from backend.types import ARM_BY_KEY, ARMS, Arm
from benchmarks.synthetic_atlas import synthetic_atlas
from tests.builders_app import edit_table
from tests.builders_atlas import BagEncoder, build_atlas
from tests.plain_search import PlainLexicalIndex, plain_scores
from tests.source_tree import ROOT


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_atlas(tmp_path_factory.mktemp("search") / "atlas", encoder=BagEncoder())


@pytest.fixture(scope="module")
def store(folder: Path) -> FeatureStore:
    return FeatureStore(Artifact.open(folder))


@pytest.fixture(scope="module")
def search(store: FeatureStore) -> Search:
    return Search(store, BagEncoder())


class Counting(BagEncoder):
    """Counts what it encodes."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.texts += texts
        return super().encode(texts)


# --------------------------------------------------------------------------------------------------------- words


@pytest.mark.parametrize(
    "words",
    [
        ("stripe", "stripes", "striped"),
        ("vehicle", "vehicles", "Vehicle"),
        ("blur", "blurred", "blurring"),
        ("city", "cities"),
        ("box", "boxes"),
        ("wheel", "wheels"),
        ("horse", "horses"),
        ("recede", "receding", "receded"),
    ],
)
def test_forms_of_one_word_fall_together(words: tuple[str, ...]) -> None:
    assert len({stem(word) for word in words}) == 1, {word: stem(word) for word in words}


@pytest.mark.parametrize(("one", "other"), [("red", "road"), ("glass", "glade"), ("sing", "sin"), ("bus", "bush")])
def test_different_words_stay_apart(one: str, other: str) -> None:
    assert stem(one) != stem(other)


def test_terms_drop_stop_words_and_signs() -> None:
    assert terms("The red car, on a ROAD (of sand)!") == ["red", "car", "road", "sand"]
    assert terms("Straße größer 3x") == ["strass", "grösser", "3x"]


def test_bm25_prefers_rare_words_and_full_matches() -> None:
    scores = LexicalIndex(["red car", "red apple", "red dress", "blue car on a road"]).scores("red car")
    assert scores.argmax() == 0
    assert scores[3] > scores[1], "car is rarer than red"
    assert ((scores > 0) & (scores <= 1)).all()


def test_an_index_without_texts_or_matches_finds_nothing() -> None:
    assert LexicalIndex([]).scores("x").shape == (0,)
    assert LexicalIndex(["", "the", "a car"]).scores("zeppelin").tolist() == [0, 0, 0]
    assert LexicalIndex(["a car"]).scores("the").tolist() == [0]


WORDS = st.lists(
    st.sampled_from("red Cars car apple THE of_it striped stripes straße 3x カニ \n é".split(" ")), max_size=6
)
TEXT_OF_WORDS = WORDS.map(" ".join) | st.text(max_size=12)


@given(st.lists(st.tuples(TEXT_OF_WORDS, st.integers(0, 3)), max_size=8), TEXT_OF_WORDS)
def test_lexical_scores_equal_the_plain_ones(documents: list[tuple[str, int]], query: str) -> None:
    texts, copies = [text for text, _ in documents], [n for _, n in documents]
    places = np.repeat(np.arange(len(texts)), copies)
    plain = PlainLexicalIndex([texts[place] for place in places]).scores(query)
    fast = LexicalIndex(texts, copies)
    found = fast.scores(query)
    assert fast.n_documents == len(places) and found.shape == (len(texts),)
    for at, place in enumerate(places.tolist()):
        assert found[place] == pytest.approx(plain.get(at, 0.0), abs=1e-12)


# -------------------------------------------------------------------------------------------------------- queries


@pytest.mark.parametrize("text", ["", "   ", "\n\t", "?!", "—", "🦀"])
def test_a_query_without_words_is_refused(search: Search, text: str) -> None:
    assert not has_words(text)
    with pytest.raises(EmptyQuery, match="holds no words"):
        search.query(text)


@pytest.mark.parametrize(
    ("query", "term"),
    [
        ("depth", "depth"),
        ("perspective", "perspective"),
        ("animals", "animal"),
        ("vehicle", "vehicle"),
        ("striped", "pattern"),
        ("stripes", "pattern"),
        ("fruit", "fruit"),
    ],
)
def test_group_words_find_features_by_their_truth(search: Search, store: FeatureStore, query: str, term: str) -> None:
    hits = search.query(query, 5)
    assert len(hits) == 5
    for hit in hits:
        assert term in store.feature(hit.feature).truth_terms, hit


def test_hits_are_unique_ranked_and_limited(search: Search) -> None:
    hits = search.query("a red car on a road", 30)
    features = [hit.feature for hit in hits]
    assert len(set(features)) == len(features) <= 30
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert all(0 <= hit.score <= 1 for hit in hits)
    assert search.query("a red car on a road", 3) == hits[:3] and search.query("car", 0) == []


def test_every_hit_says_why(search: Search, store: FeatureStore) -> None:
    for query in ("zebra", "perspective", "animal features", "mixed"):
        for hit in search.query(query, 60):
            assert hit.why
            assert (hit.similarity is not None) == (hit.reason in {"meaning", "both"})
            assert ("close in meaning" in hit.why) == (hit.similarity is not None)
            assert any(word in hit.why for word in ("says it", "truth is", "cluster is")) == (hit.reason != "meaning")
            assert hit.arm is None or hit.text in {
                one.text for one in store.explanations(hit.feature) if one.arm == hit.arm
            }
            assert hit.arm is None or not hit.arm.is_control
            assert hit.feature in store


def test_the_text_shown_is_the_one_that_matches(search: Search) -> None:
    for hit in search.query("automobile", 5):
        assert "automobile" in hit.text


def test_words_of_controls_find_nothing(search: Search) -> None:
    hits = search.query("nothing", 60)
    assert all(hit.reason == "meaning" for hit in hits), "only the unsteered control says nothing"


def test_queries_are_encoded_once(store: FeatureStore) -> None:
    encoder = Counting()
    search = Search(store, encoder)
    first = search.query("red  car ")
    assert search.query("red car") == first and encoder.texts == ["red car"]


def test_odd_queries_are_just_text(search: Search) -> None:
    for query in ("<script>alert(1)</script>", "' OR 1=1 --", "../../etc/passwd", "x" * 10_000, "カニ", "a\x00b"):
        assert isinstance(search.query(query, 5), list)


QUERIES = ["zebra", "a red car on a road", "striped pattern", "ripe fruit", "animal features", "nothing", "depth of it"]


@pytest.mark.parametrize("arm", [None, *(arm for arm in ARMS if not arm.is_control)], ids=lambda arm: arm and arm.key)
def test_scores_equal_those_of_a_plain_search(search: Search, store: FeatureStore, arm: Arm | None) -> None:
    for query in QUERIES:
        plain = plain_scores(store, BagEncoder(), query, arm)
        hits = search.query(query, len(store), arm)
        assert {hit.feature for hit in hits} == plain.keys(), query
        for hit in hits:
            assert hit.score == pytest.approx(plain[hit.feature], abs=2e-3), (query, hit)


def test_the_first_hits_of_a_large_atlas_are_those_of_brute_force(tmp_path: Path) -> None:
    """Recall 1.0 at 20 with ties counted as one: a hit may be exchanged only for one of equal score."""
    store = FeatureStore(synthetic_atlas(tmp_path / "large", 3000, encoder=BagEncoder()))
    search = Search(store, BagEncoder())
    for query in ("a red dog in the rain", "texture of stone", "shallow depth", "clock"):
        plain = sorted(plain_scores(store, BagEncoder(), query).values(), reverse=True)
        hits = search.query(query, 20)
        assert len({hit.feature for hit in hits}) == 20
        np.testing.assert_allclose([hit.score for hit in hits], plain[:20], atol=2e-3)


@pytest.mark.parametrize("arm", [arm for arm in ARMS if not arm.is_control], ids=lambda arm: arm.key)
def test_only_the_words_of_the_chosen_method_count(search: Search, store: FeatureStore, arm: Arm) -> None:
    for hit in search.query("striped pattern", 60, arm):
        said = {one.arm: one.text for one in store.explanations(hit.feature)}
        assert hit.arm == arm and hit.text == said[arm]
        assert "truth" not in hit.why and "cluster" not in hit.why
    said = {one.feature for one in search.query("automobile", 60, arm) if one.reason in {"words", "both"}}
    texts = {
        feature: {one.arm: one.text or "" for one in store.explanations(feature)}[arm]
        for feature in store.feature_ids.tolist()
    }
    assert said == {feature for feature, text in texts.items() if "automobile" in text}


def test_every_method_is_searched_by_meaning(tmp_path: Path) -> None:
    """A text of one method alone is found, although it did not win; the hit says whose it is."""

    def change(rows: list[dict[str, object]]) -> None:
        row = next(row for row in rows if row["feature"] == 7 and row["arm"] == "top_k_heatmaps")
        row["text"] = "polka dots"

    build_atlas(tmp_path / "a", encoder=BagEncoder())
    edit_table(tmp_path / "a", "explanations", change)
    store = FeatureStore(Artifact.open(tmp_path / "a"))
    hits = {hit.feature: hit for hit in Search(store, BagEncoder()).query("polka dots", 60)}
    assert store.feature(7).best_text != "polka dots"
    assert hits[7].arm == ARM_BY_KEY["top_k_heatmaps"] and hits[7].similarity == pytest.approx(1, abs=1e-3)


# ------------------------------------------------------------------------------------------------------ more like it


def test_like_by_meaning_ranks_by_the_texts_of_all_methods(search: Search, store: FeatureStore) -> None:
    hits = search.like(0, "meaning", 60)
    assert len(hits) == 59 and 0 not in {hit.feature for hit in hits}
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert [store.feature(hit.feature).truth_concept for hit in hits[:4]] == ["cat"] * 4
    assert search.like(0, "meaning", 3) == hits[:3] and search.like(0, n=0) == []
    vectors = dict(zip(store.texts["text"].to_pylist(), store.artifact.array("embeddings"), strict=True))

    def said(feature: int) -> list[np.ndarray]:
        records = [one for one in store.explanations(feature) if one.text and not one.arm.is_control]
        return [vectors[one.text].astype(np.float64) for one in records if one.text]

    for hit in hits[::7]:
        others = said(hit.feature)
        expected = np.mean([max(float(mine @ other) for other in others) for mine in said(0)])
        assert hit.similarity == pytest.approx(expected, abs=2e-3)
        assert "close in meaning" in hit.why and hit.reason == "meaning"


@pytest.mark.parametrize("kind", ["direction", "coactivation"])
def test_like_by_neighbours_says_the_kind(search: Search, store: FeatureStore, kind: str) -> None:
    hits = search.like(0, kind, 5)
    assert [hit.feature for hit in hits] == [near.feature for near in store.neighbours(0, kind)[:5]]
    assert {hit.reason for hit in hits} == {kind} and all(f"{hit.similarity:.2f}" in hit.why for hit in hits)
    assert [hit.text for hit in hits] == [store.feature(hit.feature).best_text for hit in hits]


def test_like_refuses_what_is_not_there(search: Search) -> None:
    for kind in LIKE_KINDS:
        with pytest.raises(UnknownFeature):
            search.like(999, kind)
    with pytest.raises(ValueError, match="choose one of: meaning, direction, coactivation"):
        search.like(0, "taste")


def test_similar_features(search: Search, store: FeatureStore) -> None:
    found = search.similar(0)
    assert found and all(store.feature(item.feature).best_text for item in found)
    assert search.similar(0, "direction") != found
    with pytest.raises(UnknownFeature):
        search.similar(999)


# ------------------------------------------------------------------------------------------------------- bad input


def _with_index(folder: Path, target: Path, data: bytes) -> Search:
    writer = ArtifactWriter(target, "atlas", 1, {}, {})
    source = Artifact.open(folder)
    for name in source.manifest.files:
        writer.write_bytes(name, data if name == "index.faiss" else source.path(name).read_bytes())
    return Search(FeatureStore(writer.commit()), BagEncoder())


def test_an_index_that_does_not_fit_is_damage(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactDamaged, match="not a faiss index"):
        _with_index(folder, tmp_path / "one", b"garbage").query("car")
    small = build_atlas(tmp_path / "small", n_features=5, encoder=BagEncoder())
    with pytest.raises(ArtifactDamaged, match=r"holds \d+ vectors for \d+ texts"):
        _with_index(folder, tmp_path / "two", (small / "index.faiss").read_bytes()).query("car")


def test_absent_packages_are_named(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(DependencyMissing, match="pip install faiss-cpu"):
        Search(store, BagEncoder()).query("car")
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    load_text_encoder.cache_clear()
    with pytest.raises(DependencyMissing, match="pip install tokenizers"):
        load_text_encoder("all-MiniLM-L6-v2").encode(["car"])


def test_unknown_encoder_is_named() -> None:
    with pytest.raises(RecipeError, match=r"no text encoder 'word2vec'.*all-MiniLM-L6-v2"):
        load_text_encoder("word2vec")


def test_an_atlas_of_one_feature_and_none(tmp_path: Path) -> None:
    one = FeatureStore(Artifact.open(build_atlas(tmp_path / "one", n_features=1, encoder=BagEncoder())))
    assert [hit.feature for hit in Search(one, BagEncoder()).query("cat")] == [0]


# -------------------------------------------------------------------------------------------------- the real encoder


def test_minilm_finds_by_meaning_offline_and_without_torch(tmp_path: Path) -> None:
    """In a process of its own, because other tests load torch into this one."""
    program = f"""
import sys
from pathlib import Path
from backend.atlas import FeatureAtlas
assert not {{"torch", "faiss", "scipy", "tokenizers"}} & set(sys.modules)
from tests.builders_atlas import build_atlas
atlas = FeatureAtlas.open(build_atlas(Path({str(tmp_path / "atlas")!r})))
assert atlas.store.artifact.array("embeddings").shape == (len(atlas.store.texts), 384)
hit = atlas.search.query("feline", 1)[0]
assert hit.reason == "meaning" and atlas.store.feature(hit.feature).truth_concept == "cat", hit
for query, term in (("depth", "depth"), ("perspective", "perspective"), ("animal", "animal"), ("stripes", "pattern")):
    assert all(term in atlas.store.feature(hit.feature).truth_terms for hit in atlas.search.query(query, 5)), query
assert not {{"torch", "transformers", "sentence_transformers"}} & set(sys.modules)
print("found")
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.strip() == "found", done.stderr[-2000:]


TEXTS = [
    "a cat",
    "striped pattern",
    "",
    "Größe, café?",
    "many things " * 200,
    *(f"thing {i} on a road" for i in range(40)),
]


def test_minilm_rows_are_units_and_do_not_depend_on_the_batch() -> None:
    encoder = load_text_encoder("all-MiniLM-L6-v2")
    rows = encoder.encode(TEXTS)
    assert rows.shape == (len(TEXTS), 384) and rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(np.concatenate([encoder.encode([text]) for text in TEXTS]), rows, atol=1e-5)
    assert encoder.encode([]).shape == (0, 384)
    assert len(encoder.fingerprint) == 64


@pytest.mark.slow
@pytest.mark.parity
def test_minilm_equals_sentence_transformers() -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    encoder = load_text_encoder("all-MiniLM-L6-v2")
    assert isinstance(encoder, PackagedTextEncoder)
    model = sentence_transformers.SentenceTransformer(str(encoder.model_dir), device="cpu", local_files_only=True)
    expected = model.encode(TEXTS, normalize_embeddings=True, show_progress_bar=False)
    np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=2e-6)
