"""Steering: exact arithmetic, and a cached prefix that equals hooks through the untouched transformers model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.directions import OWN, Permuted, Random, control_seed, permuted_feature, random_direction
from backend.errors import ActivationsNotFinite, InterventionNotApplied, SubjectMismatch, UnknownFeature
from backend.hooks import edit_hook_point
from backend.models.base import Sampling
from backend.sae import SAEConfig, TopKSAE
from backend.steering import SteeringSession, edit
from backend.types import Intervention, Operation, PatchScope
from tests.builders_subject import load_tiny_subject, noise_images, random_sae, reference_ids, said

PROMPT = "What is shown in the image?"
N_ROWS, N_PATCHES, D_MODEL = 3, 6, 8
SEEDS = st.integers(0, 10_000)
STRENGTHS = st.floats(-50, 50, width=32)
OPERATIONS = st.sampled_from(Operation)


def planted(seed: int, strength: float = 1.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Residual, unit directions, strengths and activations for the pure arithmetic."""
    generator = torch.Generator().manual_seed(seed)
    residual = torch.randn(N_ROWS, N_PATCHES, D_MODEL, generator=generator)
    direction = torch.nn.functional.normalize(torch.randn(N_ROWS, D_MODEL, generator=generator), dim=1)
    activation = torch.rand(N_ROWS, N_PATCHES, generator=generator) + 0.1
    return residual, direction, torch.tensor([strength, 2 * strength, 3 * strength]), activation


@settings(max_examples=50)
@given(seed=SEEDS, strength=STRENGTHS, operation=OPERATIONS, bits=st.integers(0, 2 ** (N_ROWS * N_PATCHES) - 1))
def test_an_edit_touches_the_masked_patches_only(seed, strength, operation, bits):
    residual, direction, strengths, activation = planted(seed, strength)
    mask = torch.tensor([bits >> at & 1 for at in range(N_ROWS * N_PATCHES)], dtype=torch.bool)
    mask = mask.reshape(N_ROWS, N_PATCHES)
    before = residual.clone()
    edited = edit(residual, direction, strengths, operation, mask, activation)
    assert torch.equal(residual, before), "the edit must be pure"
    assert torch.equal(edited[~mask], residual[~mask])
    everywhere = edit(residual, direction, strengths, operation, torch.ones_like(mask), activation)
    assert torch.equal(edited[mask], everywhere[mask])


@settings(max_examples=30)
@given(seed=SEEDS, strength=STRENGTHS)
def test_each_operation_does_what_it_says(seed, strength):
    residual, direction, strengths, activation = planted(seed, strength)
    everywhere = torch.ones(N_ROWS, N_PATCHES, dtype=torch.bool)
    for row in range(N_ROWS):
        for patch in range(N_PATCHES):
            h, d, s, a = residual[row, patch], direction[row], strengths[row], activation[row, patch]
            expected = {Operation.ADD: h + s * d, Operation.SET: s * d, Operation.ABLATE: h - a * d}
            for operation, value in expected.items():
                edited = edit(residual, direction, strengths, operation, everywhere, activation)
                torch.testing.assert_close(edited[row, patch], value)


@given(seed=SEEDS)
def test_strength_zero_is_the_identity(seed):
    residual, direction, _, _ = planted(seed)
    everywhere = torch.ones(N_ROWS, N_PATCHES, dtype=torch.bool)
    assert torch.equal(edit(residual, direction, torch.zeros(N_ROWS), Operation.ADD, everywhere), residual)


def test_ablating_needs_activations():
    residual, direction, strengths, _ = planted(0)
    with pytest.raises(ValueError, match="activations"):
        edit(residual, direction, strengths, Operation.ABLATE, torch.ones(N_ROWS, N_PATCHES, dtype=torch.bool))


def test_ablating_silences_the_feature_and_no_other():
    basis = torch.linalg.qr(torch.randn(D_MODEL, D_MODEL, generator=torch.Generator().manual_seed(0)))[0]
    zeros = torch.zeros(D_MODEL)
    config = SAEConfig(d_model=D_MODEL, d_sae=D_MODEL, k=D_MODEL)
    sae = TopKSAE(config, W_enc=basis.T, b_enc=zeros, W_dec=basis, b_dec=zeros)
    residual = torch.randn(1, N_PATCHES, D_MODEL, generator=torch.Generator().manual_seed(1))
    activations = sae.encode(residual).dense()
    ablated = edit(
        residual,
        sae.direction(2)[None],
        torch.zeros(1),
        Operation.ABLATE,
        torch.ones(1, N_PATCHES, dtype=torch.bool),
        activations[..., 2],
    )
    assert activations[..., 2].max() > 0.1
    expected = activations.clone()
    expected[..., 2] = 0
    torch.testing.assert_close(sae.encode(ablated).dense(), expected, atol=1e-5, rtol=1e-5)


@given(seed=SEEDS)
def test_random_directions_are_unit_seeded_and_different(seed):
    direction = random_direction(seed, 64)
    assert direction.norm() == pytest.approx(1, abs=1e-5)
    assert torch.equal(direction, random_direction(seed, 64))
    assert abs(float(direction @ random_direction(seed + 1, 64))) < 0.7


def test_control_seeds_differ_by_seed_and_feature():
    seeds = {control_seed(seed, feature) for seed in range(20) for feature in range(50)}
    assert len(seeds) == 1000


@given(alive=st.lists(st.integers(0, 500), min_size=2, max_size=40, unique=True))
def test_the_permutation_moves_every_feature_and_reaches_each_once(alive):
    partners = [permuted_feature(feature, alive) for feature in alive]
    assert sorted(partners) == sorted(alive)
    assert all(partner != feature for partner, feature in zip(partners, alive, strict=True))


def test_a_permutation_refuses_what_it_cannot_permute():
    with pytest.raises(ValueError, match="at least two"):
        permuted_feature(3, [3])
    with pytest.raises(ValueError, match="not in the list"):
        permuted_feature(4, [1, 2, 3])


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    subject = load_tiny_subject(tmp_path_factory.mktemp("subject"), layer=1)
    return SteeringSession(subject, random_sae(layer=1))


def active_feature(session, image=None) -> int:
    """A feature active on some patches of the image, but not on all."""
    counts = (session.features(image).dense() > 0).sum(dim=0)
    return int(((counts > 0) & (counts < 16)).nonzero()[0])


def every_kind(session, image) -> list[list[Intervention]]:
    """One row per operation and scope, two rows of several interventions, and the unsteered row."""
    one = active_feature(session, image)
    active_patch = int(session.features(image).of(one).argmax())
    rows = [
        [Intervention(feature=one, strength=8.0, operation=operation, scope=scope, patches=(active_patch, 5, 15))]
        for operation in Operation
        for scope in PatchScope
    ]
    first, second = (
        Intervention(feature=7, strength=6.0),
        Intervention(feature=one, strength=-4.0, operation=Operation.SET, scope=PatchScope.GIVEN, patches=(1, 2)),
    )
    return [*rows, [first, second], [second, first], []]


def by_hand(session, base: torch.Tensor, row: list[Intervention], along=OWN) -> torch.Tensor:
    """The edited residual [1 patch d_model], patch by patch, straight from the definitions."""
    edited = base.clone()
    for one in row:
        direction = along.of(one.feature, session.sae)
        activation = session.sae.encode(base).of(one.feature)
        for patch in range(base.shape[1]):
            inside = {
                PatchScope.ALL: True,
                PatchScope.ACTIVE: bool(activation[0, patch] > 0),
                PatchScope.GIVEN: patch in one.patches,
            }[one.scope]
            if inside:
                edited[0, patch] = {
                    Operation.ADD: edited[0, patch] + one.strength * direction,
                    Operation.SET: one.strength * direction,
                    Operation.ABLATE: edited[0, patch] - activation[0, patch] * direction,
                }[one.operation]
    return edited


@pytest.mark.parametrize("with_image", [False, True])
def test_batched_steering_from_the_cached_prefix_equals_hooks_one_at_a_time(session, with_image):
    subject = session.subject
    image = noise_images(1, seed=9)[0] if with_image else None
    shown = image or subject.blank_image()
    rows = every_kind(session, image)
    batched = session.embeddings(rows, image)
    answers = session.answers(rows, PROMPT, image, max_new_tokens=8)
    ids = subject.generate_ids(batched[:, None], PROMPT, max_new_tokens=8).tolist()
    for at, row in enumerate(rows):
        with torch.no_grad(), edit_hook_point(subject.hook_module, lambda base, row=row: by_hand(session, base, row)):
            reference = subject.model.get_image_features(subject.preprocess([shown])).pooler_output[0]
        torch.testing.assert_close(batched[at], reference, atol=1e-4, rtol=1e-4)
        with edit_hook_point(subject.hook_module, lambda base, row=row: by_hand(session, base, row)):
            expected = reference_ids(subject, [shown], PROMPT, max_new_tokens=8)
        assert ids[at][: len(expected)] == expected
        assert answers[at].text == said(subject, expected)
    assert len({answer.text for answer in answers}) >= 3, "steering must change the answers for this test to mean much"


def test_patches_are_counted(session):
    image = noise_images(1, seed=9)[0]
    feature = active_feature(session, image)
    n_active = int((session.features(image).of(feature) > 0).sum())
    rows = [
        [Intervention(feature=feature, strength=5.0)],
        [Intervention(feature=feature, strength=5.0, scope=PatchScope.ACTIVE)],
        [Intervention(feature=feature, strength=5.0, scope=PatchScope.GIVEN, patches=(3, 3, 4))],
        [
            Intervention(feature=feature, strength=5.0, scope=PatchScope.GIVEN, patches=(3, 4)),
            Intervention(feature=1, strength=5.0, scope=PatchScope.GIVEN, patches=(4, 5)),
        ],
        [],
    ]
    counts = [answer.n_patches_edited for answer in session.answers(rows, PROMPT, image, max_new_tokens=2)]
    assert counts == [16, n_active, 2, 3, 0]


def test_a_row_does_not_depend_on_its_batch(session):
    rows = [[Intervention(feature=feature, strength=10.0)] for feature in range(6)]
    together = session.embeddings(rows)
    for at, row in enumerate(rows):
        torch.testing.assert_close(session.embeddings([row])[0], together[at], atol=1e-5, rtol=1e-5)


def test_the_blank_prefix_runs_once(session, monkeypatch):
    session.residual()
    monkeypatch.setattr(session.subject, "state_at_hook", None)
    session.answers([[Intervention(feature=1, strength=5.0)]], PROMPT, max_new_tokens=1)


def test_images_are_told_apart_by_their_pixels(session):
    one, other = noise_images(2, seed=4)
    assert torch.equal(session.residual(one), session.residual(one.copy()))
    assert not torch.allclose(session.residual(one), session.residual(other))


@pytest.mark.parametrize(
    ("intervention", "message"),
    [
        (Intervention(feature=1, strength=0.0), "changed nothing"),
        (Intervention(feature=1, strength=5.0, scope=PatchScope.GIVEN), "touched no patch"),
        (Intervention(feature=1, strength=5.0, scope=PatchScope.GIVEN, patches=(16,)), "outside 0..15"),
        (Intervention(feature=1, strength=5.0, scope=PatchScope.GIVEN, patches=(-1,)), "outside 0..15"),
    ],
)
def test_text_that_was_not_steered_is_withheld(session, intervention, message):
    rows = [[Intervention(feature=2, strength=5.0)], [intervention]]
    with pytest.raises(InterventionNotApplied, match=message):
        session.answers(rows, PROMPT, max_new_tokens=2)


@pytest.mark.parametrize("operation", [Operation.ADD, Operation.ABLATE])
def test_a_feature_that_is_not_active_has_no_active_patches(session, operation):
    silent = int((session.features().dense().sum(dim=0) == 0).nonzero()[0])
    intervention = Intervention(feature=silent, strength=5.0, operation=operation, scope=PatchScope.ACTIVE)
    with pytest.raises(InterventionNotApplied, match=f"feature {silent} touched no patch"):
        session.answers([[intervention]], PROMPT, max_new_tokens=2)
    everywhere = Intervention(feature=silent, strength=5.0, operation=Operation.ABLATE)
    with pytest.raises(InterventionNotApplied, match="changed nothing"):
        session.answers([[everywhere]], PROMPT, max_new_tokens=2)


def test_an_unknown_feature_is_refused(session):
    with pytest.raises(UnknownFeature):
        session.answers([[Intervention(feature=64, strength=5.0)]], PROMPT, max_new_tokens=2)


def test_a_strength_beyond_the_number_range_is_refused(session):
    with pytest.raises(ActivationsNotFinite, match="smaller strength"):
        session.answers([[Intervention(feature=1, strength=float("nan"))]], PROMPT, max_new_tokens=2)


def test_a_random_control_keeps_scope_and_strength_but_not_direction(session):
    rows = [[Intervention(feature=3, strength=9.0)]]
    blank = session.residual()
    direction = random_direction(control_seed(5, 3), 32)
    expected = session.subject.from_hook((blank + 9.0 * direction)[None])
    torch.testing.assert_close(session.embeddings(rows, directions=Random(5)), expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(session.embeddings(rows), expected, atol=1e-2)


def test_a_permuted_control_uses_the_direction_of_its_partner(session):
    alive = (1, 3, 7, 9)
    rows = [[Intervention(feature=3, strength=9.0)]]
    partner = [[Intervention(feature=permuted_feature(3, alive), strength=9.0)]]
    assert permuted_feature(3, alive) == 9
    torch.testing.assert_close(session.embeddings(rows, directions=Permuted(alive)), session.embeddings(partner))
    with pytest.raises(ValueError, match="not in the list"):
        session.embeddings([[Intervention(feature=4, strength=9.0)]], directions=Permuted(alive))


@pytest.mark.parametrize("along", [Random(0), Permuted((1, 2)), OWN])
def test_an_unknown_feature_is_refused_along_every_direction(session, along):
    wanted = (UnknownFeature, ValueError)
    with pytest.raises(wanted):
        session.embeddings([[Intervention(feature=64, strength=5.0)]], directions=along)


def test_controls_and_doses_in_one_batch_equal_hooks_one_at_a_time(session):
    image = noise_images(1, seed=9)[0]
    feature = active_feature(session, image)
    alive = tuple(sorted({2, feature, 20, 40, 63}))
    doses = [[Intervention(feature=feature, strength=2.0 * at)] for at in range(1, 11)]
    weighted = [
        Intervention(feature=feature, strength=6.0),
        Intervention(feature=20, strength=-3.0, operation=Operation.SET, scope=PatchScope.GIVEN, patches=(0, 9)),
        Intervention(feature=feature, strength=0.0, operation=Operation.ABLATE, scope=PatchScope.ACTIVE),
    ]
    rows = [[], weighted, weighted, weighted, *doses, *doses]
    along = [OWN, OWN, Random(4), Permuted(alive), *[OWN] * 10, *[Random(4)] * 10]
    batched = session.embeddings(rows, image, directions=along)
    ids = session.subject.generate_ids(batched[:, None], PROMPT, max_new_tokens=4).tolist()
    steps = list(session.stream(rows, PROMPT, image, max_new_tokens=4, directions=along))
    subject = session.subject
    for at, (row, direction) in enumerate(zip(rows, along, strict=True)):

        def plain(base, row=row, direction=direction):
            return by_hand(session, base, row, direction)

        with torch.no_grad(), edit_hook_point(subject.hook_module, plain):
            reference = subject.model.get_image_features(subject.preprocess([image])).pooler_output[0]
        torch.testing.assert_close(batched[at], reference, atol=1e-4, rtol=1e-4)
        with edit_hook_point(subject.hook_module, plain):
            expected = reference_ids(subject, [image], PROMPT, max_new_tokens=4)
        assert ids[at][: len(expected)] == expected
        assert steps[-1][at].text == said(subject, expected)


def test_probabilities_of_an_answer_are_those_of_each_row_alone(session):
    steered = [Intervention(feature=3, strength=25.0)]
    rows, along = [[], steered, steered, steered], [OWN, OWN, Random(5), Permuted((1, 3, 7, 9))]
    answer = session.answers([steered], PROMPT, max_new_tokens=6)[0].text
    together = session.answer_probabilities(rows, PROMPT, answer, directions=along)
    assert len(together[0]) == 6
    for at in range(4):
        embeddings = session.embeddings([rows[at]], directions=[along[at]])[:, None]
        alone = session.subject.answer_probabilities(embeddings, PROMPT, answer)[0]
        assert [one.text for one in together[at]] == [one.text for one in alone]
        ours = [one.log_probability for one in together[at]]
        assert ours == pytest.approx([one.log_probability for one in alone], abs=1e-4)
    # The steered row is the one that said it: each of its tokens was the likeliest there.
    assert all(one.log_probability == one.likeliest_log_probability for one in together[1])
    sums = [sum(one.log_probability for one in row) for row in together]
    assert len({round(total, 3) for total in sums}) == 4, "the rows must differ for this test to mean anything"


def test_one_direction_for_each_row_or_one_for_all(session):
    rows = [[Intervention(feature=3, strength=9.0)]] * 2
    torch.testing.assert_close(
        session.embeddings(rows, directions=Random(5)), session.embeddings(rows, directions=[Random(5), Random(5)])
    )
    with pytest.raises(ValueError, match="1 directions were given for 2 rows"):
        session.embeddings(rows, directions=[OWN])


def test_streams_end_like_answers_with_controls_beside(session):
    steered = [Intervention(feature=3, strength=9.0)]
    rows = [[], steered, steered]
    steps = list(session.stream(rows, PROMPT, max_new_tokens=5, directions=[OWN, OWN, Random(5)]))
    assert [answer.n_patches_edited for answer in steps[0]] == [0, 16, 16]
    expected = [
        *session.answers(rows[:2], PROMPT, max_new_tokens=5),
        *session.answers(rows[2:], PROMPT, max_new_tokens=5, directions=Random(5)),
    ]
    assert steps[-1] == expected
    assert len(list(session.stream(rows, PROMPT, max_new_tokens=9, should_stop=lambda: True))) == 1


@pytest.mark.parametrize("sampling", [None, Sampling(seed=4, paired=True)])
def test_a_stream_in_small_batches_ends_like_one_at_once(session, sampling):
    steered = [Intervention(feature=3, strength=9.0)]
    rows, along = [[], steered, steered, [], steered], [OWN, OWN, Random(5), OWN, Random(6)]
    small = SteeringSession(session.tower, session.sae, max_rows=2)
    options: Any = {"max_new_tokens": 5, "directions": along, "sampling": sampling}
    steps = list(small.stream(rows, PROMPT, **options))
    assert steps[-1] == list(session.stream(rows, PROMPT, **options))[-1]
    assert [bool(one.text) for one in steps[0]] == [True, True, False, False, False]
    told, whole = (one.answer_probabilities(rows, PROMPT, "the red", directions=along) for one in (small, session))
    for row, expected in zip(told, whole, strict=True):
        assert [one.log_probability for one in row] == pytest.approx([one.log_probability for one in expected])


def test_an_sae_of_another_width_or_hook_point_is_refused(session):
    with pytest.raises(SubjectMismatch, match=r"width 16.*width 32"):
        SteeringSession(session.subject, random_sae(d_model=16))
    with pytest.raises(SubjectMismatch, match=r"vision\.2\.residual.*vision\.1\.residual"):
        SteeringSession(session.subject, random_sae(layer=2))


def test_many_rows_are_answered_in_order(session):
    rows = [[Intervention(feature=at % 64, strength=20.0)] for at in range(70)]
    answers = session.answers(rows, PROMPT, max_new_tokens=3)
    assert len(answers) == 70
    assert answers[:6] == answers[64:]
