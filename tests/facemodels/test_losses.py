"""Every term against a value worked out by other means, and what each must not depend on."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from facemodels import losses
from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.config import FIVE_POINTS, LossWeights
from facemodels.data.dataset import Faces
from facemodels.losses import Decoded, Objective, Truth, truth_from_faces
from facemodels.networks import fill_face, fill_in
from facemodels.networks.verification import Facts, Verifier
from facemodels.training.adversary import Adversary
from facemodels.training.step import TrainingStep, strided

PARTNER, TURNED, SURROUND = torch.tensor([5, 4, 3, 2, 1, 0]), torch.tensor([1, 3, 5]), torch.tensor([0, 4])
PIXELWISE = {
    "face_l2": (losses.FaceL2, "image", lambda a, b: (a - b) ** 2),
    "face_l1": (losses.FaceL1, "image", lambda a, b: abs(a - b)),
    "normals": (losses.Normals, "normals", lambda a, b: (a - b) ** 2),
}


@pytest.fixture
def faces(prepared) -> Faces:
    return prepared.faces("train")[:6]


@pytest.fixture
def truth(model, faces) -> Truth:
    return truth_from_faces(faces, model.shape_target, faces.expression[PARTNER], TURNED)


@pytest.fixture
def decoded(model, faces, truth, training_config, morphable) -> Decoded:
    step = TrainingStep(model, training_config, morphable)
    with torch.no_grad():
        lenders = faces.image[faces.swapped_row][TURNED].float() / 255
        return step._decode(faces, truth, PARTNER, TURNED, SURROUND, lenders)


def term(name, decoded, truth, morphable, adversary=None, verifier=None) -> float:
    weights = LossWeights(**{field.name: float(field.name == name) for field in dataclasses.fields(LossWeights)})
    with torch.no_grad():
        total, values = Objective(weights, morphable, adversary, verifier)(decoded, truth)
    assert list(values) == [name]
    assert_close(total, values[name])
    return float(total)


@pytest.mark.parametrize("name", PIXELWISE)
def test_face_terms_are_means_over_the_mask(name, decoded, truth):
    kind, field, error = PIXELWISE[name]
    first, second = getattr(decoded.face, field).numpy(), getattr(truth, field).numpy()
    inside = np.broadcast_to(truth.mask.numpy() > 0, first.shape)
    assert float(kind()(decoded, truth)) == pytest.approx(error(first, second)[inside].mean(), rel=1e-4)


@pytest.mark.parametrize("name", [*PIXELWISE, "albedo_smoothness", "white_shading", "frontal", "frontal_normals"])
def test_face_terms_ignore_what_is_outside_the_mask(name, decoded, truth, morphable):
    outside = 1 - truth.mask
    noise = {part: value + outside * torch.randn_like(value) for part, value in vars(decoded.face).items()}
    noisy = dataclasses.replace(
        decoded,
        face=dataclasses.replace(decoded.face, **noise),
        frontal=decoded.frontal + outside[decoded.frontal_rows] * 9,
        frontal_normals=decoded.frontal_normals + outside[decoded.frontal_rows] * 9,
    )
    assert term(name, noisy, truth, morphable) == pytest.approx(term(name, decoded, truth, morphable), rel=1e-5)


def test_a_light_per_colour_is_judged_by_its_mean_and_each_is_white(decoded, truth, morphable):
    colours = torch.tensor([0.4, -0.1, -0.3]).repeat_interleave(9)
    light = truth.light.repeat(1, 3) + colours
    three = dataclasses.replace(decoded, codes=dataclasses.replace(decoded.codes, light=light))
    assert term("light", three, truth, morphable) == pytest.approx(0, abs=1e-10)
    three.codes.light[:, :9] += 0.3
    assert term("light", three, truth, morphable) == pytest.approx(0.01, rel=1e-4)
    means = torch.tensor([0.95, 0.75, 0.45])
    shading = means[:, None, None].expand(6, 3, 64, 64)
    lit = dataclasses.replace(decoded, face=dataclasses.replace(decoded.face, shading=shading))
    assert term("white_shading", lit, truth, morphable) == pytest.approx((0.2**2 + 0.3**2) / 2 / 3, rel=1e-4)


def test_trains_with_a_light_per_colour(network_config, faces, training_config, morphable):
    model = NeuroTensorialAutoencoder(dataclasses.replace(network_config, light_channels=3), morphable)
    TrainingStep(model, training_config, morphable)(faces, 0).total.backward()
    gradient = model.heads["light"].bias.grad.reshape(3, 9)
    assert (gradient.std(0) > 0).all()


def test_shape_is_the_mean_squared_error_of_the_projection(decoded, truth, model, morphable):
    with torch.no_grad():
        expected = (model.shape(decoded.codes.expression, decoded.codes.identity) - truth.shape).square().mean()
    assert term("shape", decoded, truth, morphable) == pytest.approx(float(expected), rel=1e-4)


def test_swapped_shape_is_the_morphable_models_own_swap(decoded, truth, faces, model, morphable):
    assert_close(truth.swapped_shape, model.shape_target(faces.identity, faces.expression[PARTNER]))
    assert_close(decoded.partner_expression, decoded.codes.expression[PARTNER])
    with torch.no_grad():
        predicted = model.shape(decoded.codes.expression[PARTNER], decoded.codes.identity)
    expected = (predicted - truth.swapped_shape).square().mean()
    assert term("swapped_shape", decoded, truth, morphable) == pytest.approx(float(expected), rel=1e-4)


def test_coefficients_count_by_the_millimetres_they_move(decoded, truth, morphable):
    lengths = np.linalg.norm(morphable.expression.numpy().reshape(3, -1), axis=1)
    error = (decoded.expression_coefficients - truth.expression).numpy() ** 2
    expected = (error * lengths / lengths.mean()).mean()
    assert term("expression", decoded, truth, morphable) == pytest.approx(expected, rel=1e-5)


def test_frontal_terms_see_near_frontal_faces_only(decoded, truth, morphable):
    rows = decoded.frontal_rows
    assert rows.tolist() == truth.frontal.nonzero().flatten().tolist()
    error = (decoded.frontal - truth.image[rows]).square().numpy()
    inside = np.broadcast_to(truth.mask[rows].numpy() > 0, error.shape)
    assert term("frontal", decoded, truth, morphable) == pytest.approx(error[inside].mean(), rel=1e-4)


def test_batch_without_a_frontal_face(model, faces, training_config, morphable):
    sideways = dataclasses.replace(faces, frontal=torch.zeros(6, dtype=torch.bool))
    result = TrainingStep(model, training_config, morphable)(sideways, 0)
    assert float(result.terms["frontal"].detach()) == 0 and torch.isfinite(result.total)


def test_mask_terms_match_the_definition(decoded, truth, morphable):
    def entropy(logits, mask):
        p = torch.sigmoid(logits.double()).numpy()
        return float(-(mask.numpy() * np.log(p) + (1 - mask.numpy()) * np.log(1 - p)).mean())

    assert term("mask", decoded, truth, morphable) == pytest.approx(
        entropy(decoded.mask_logits, truth.mask[SURROUND]), rel=1e-4
    )
    both = entropy(decoded.face.mask_logits, truth.mask) + entropy(decoded.turned.mask_logits, truth.turned_mask)
    assert term("face_mask", decoded, truth, morphable) == pytest.approx(both, rel=1e-4)


def test_squared_correlation_matches_numpy():
    first, second = torch.randn(40, 3).double(), torch.randn(40, 2).double()
    expected = np.corrcoef(first.numpy(), second.numpy(), rowvar=False)[:3, 3:] ** 2
    expected *= (39 / 40) ** 2  # deviations of n - 1 meet the mean over n
    assert float(losses.squared_correlation(first, second)) == pytest.approx(expected.mean(), rel=1e-4)


def test_shrinking_a_code_does_not_decorrelate_it():
    code, target = torch.randn(32, 6), torch.randn(32, 3)
    small = losses.squared_correlation(1e-3 * code, target)
    assert float(small) == pytest.approx(float(losses.squared_correlation(code, target)), rel=0.01)


def test_the_expression_code_is_kept_from_the_colour_of_the_face(decoded, truth, morphable):
    decorrelation = losses.Decorrelation(morphable)
    inside = truth.mask.expand_as(truth.image) > 0
    colours = torch.stack([image[mask].reshape(3, -1).mean(1) for image, mask in zip(truth.image, inside, strict=True)])
    told = dataclasses.replace(decoded, codes=dataclasses.replace(decoded.codes, expression=colours.repeat(1, 2)))
    grey = dataclasses.replace(truth, image=truth.image * (1 - truth.mask) + truth.mask * torch.rand(6, 3, 1, 1))
    assert decorrelation(told, truth) > decorrelation(told, grey) + 0.05
    for pictures in (truth, grey):
        hidden = dataclasses.replace(pictures, image=pictures.image + (1 - pictures.mask) * torch.rand(6, 3, 1, 1))
        assert_close(decorrelation(told, hidden), decorrelation(told, pictures))


def test_codes_first(model, faces, training_config, morphable):
    """At first only the encoder learns, from the targets of the codes; then everything does."""
    config = dataclasses.replace(training_config, codes_first=0.3)
    step = TrainingStep(model, config, morphable)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("paint", "surround", "frontal"):  # nothing is decoded that nobody learns from
            patch.setattr(model, name, None)
        first = step(faces, 0, 0.2)
    then = step(faces, 0, 0.3)
    assert len(first.real) == len(first.fake) == 0
    assert set(first.terms) == {"pose", "expression", "identity", "light"}
    assert_close(first.total, sum(getattr(config.weights, name) * value for name, value in first.terms.items()))
    assert_close(then.total, TrainingStep(model, training_config, morphable)(faces, 0, 0.3).total)
    first.total.backward()
    learn = {name.split(".")[0] for name, weight in model.named_parameters() if weight.grad is not None}
    assert learn == {"encoder", "heads", "expression_coefficients", "identity_coefficients"}


def test_decorrelation_ramps_up(model, faces, training_config, morphable):
    step = TrainingStep(model, training_config, morphable)
    names = {"decorrelation", "carried_codes", "swapped_codes", "cycle"}
    assert set(step._ramps(0.2)) >= names
    assert (
        step._ramps(0.0)["decorrelation"] == 0 and step._ramps(0.2)["cycle"] == 0.5 == step._ramps(0.2)["decorrelation"]
    )
    assert step._ramps(0.9)["carried_codes"] == 1
    with torch.no_grad():
        start, half, end = (step(faces, 0, done) for done in (0.0, 0.2, 1.0))
    ramped = sum(getattr(training_config.weights, name) * float(end.terms[name]) for name in names)
    assert not names & set(start.terms)
    assert float(end.total - start.total) == pytest.approx(ramped, rel=1e-4)
    assert float(half.total - start.total) == pytest.approx(ramped / 2, rel=1e-4)
    trained = TrainingStep(model, dataclasses.replace(training_config, start="run"), morphable)
    assert "decorrelation" not in trained._ramps(0.0)


def test_weights_of_zero_drop_a_term(decoded, truth, morphable):
    weights = LossWeights(frontal=0.0)
    _, values = Objective(weights, morphable)(decoded, truth)
    assert "frontal" not in values and "swapped_shape" not in values and "face_l2" in values


def test_the_truth_costs_nothing(decoded, truth, morphable):
    perfect = dataclasses.replace(
        decoded,
        codes=dataclasses.replace(decoded.codes, pose=truth.rotation, light=truth.light),
        face=dataclasses.replace(decoded.face, image=truth.image, normals=truth.normals),
        composite=truth.image[SURROUND],
        expression_coefficients=truth.expression,
        identity_coefficients=truth.identity,
        frontal=truth.image[decoded.frontal_rows],
        frontal_normals=truth.normals[decoded.frontal_rows],
    )
    names = "face_l2 face_l1 image_l2 image_l1 pose expression identity normals light frontal frontal_normals".split()
    assert {name: term(name, perfect, truth, morphable) for name in names} == dict.fromkeys(names, 0.0)


def test_every_parameter_learns(model, faces, training_config, morphable):
    model.train()
    TrainingStep(model, training_config, morphable)(faces, 0).total.backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert not silent


def test_coefficients_are_cut_at_three_deviations(model, faces):
    wild = dataclasses.replace(faces, identity=faces.identity * 100)
    truth = truth_from_faces(wild, model.shape_target, wild.expression, TURNED)
    assert truth.identity.abs().max() == losses.COEFFICIENT_LIMIT


@pytest.mark.parametrize("name", ["turned", "swapped"])
def test_carried_faces_count_pixels_as_far_as_they_are_known(name, decoded, truth, morphable):
    weight = torch.rand_like(getattr(truth, f"{name}_weight"))
    truth = dataclasses.replace(truth, **{f"{name}_weight": weight})
    error = (getattr(decoded, name).image - getattr(truth, f"{name}_image")).double().numpy()
    expected = ((abs(error) + error**2) * weight.numpy()).sum() / (3 * weight.numpy().sum())
    assert term(f"{name}_face", decoded, truth, morphable) == pytest.approx(expected, rel=1e-4)
    hidden = dataclasses.replace(truth, **{f"{name}_weight": torch.zeros_like(weight)})
    assert term(f"{name}_face", decoded, hidden, morphable) == 0


def test_a_swapped_face_has_the_lenders_expression_and_nothing_else_of_it(model, faces, training_config, morphable):
    weights = dataclasses.replace(training_config.weights, swapped_face=1.0)
    step = TrainingStep(model, dataclasses.replace(training_config, weights=weights), morphable)
    model.eval()
    truth = truth_from_faces(faces, model.shape_target, faces.expression[PARTNER], TURNED)
    lenders = faces.image[faces.swapped_row][TURNED].float() / 255
    with torch.no_grad():
        decoded = step._decode(faces, truth, PARTNER, TURNED, SURROUND, lenders)
        own, lent = model.perceive(truth.image[TURNED]), model.perceive(lenders)
        expected = model.paint(own.pose, lent.expression, own.identity, own.light)
    assert_close(decoded.swapped.image, expected.image)


def test_a_step_takes_everything_of_a_lender_from_one_face(model, faces, training_config, morphable, monkeypatch):
    step, seen = TrainingStep(model, training_config, morphable), []
    decode = step._decode
    monkeypatch.setattr(step, "_decode", lambda *args: seen.append(args) or decode(*args))
    lenders = faces.image[faces.swapped_row]
    with torch.no_grad():
        step(faces, 3, lenders=lenders)
    ((_, truth, partner, turned, _, lent),) = seen
    assert sorted(partner.tolist()) == list(range(6)) != partner.tolist()
    assert_close(truth.swapped_shape, model.shape_target(faces.identity, faces.expression[partner]))
    assert_close(lent, lenders[turned].float() / 255)


@pytest.fixture
def read(model, faces, truth, training_config, morphable):
    """What the step decodes without lenders: the expressions come from the batch."""
    return TrainingStep(model.eval(), training_config, morphable)._decode(faces, truth, PARTNER, TURNED, SURROUND, None)


def test_swapped_codes_are_those_of_the_partner_and_the_own_person(model, read, truth, morphable):
    with torch.no_grad():
        codes = model.perceive(truth.image)
        swapped = model.paint(
            codes[TURNED].pose,
            codes.expression[PARTNER][TURNED],
            codes.identity[TURNED],
            codes.light[TURNED],
        )
        mask = truth.mask[TURNED]
        again = model.perceive((mask * swapped.image + (1 - mask) * truth.image[TURNED]).clamp(0, 1))
    assert_close(read.swapped.image, swapped.image)
    assert_close(read.read_identity, again.identity)
    assert_close(read.read_coefficients, model.expression_coefficients(again.expression))
    assert_close(read.lent_coefficients, model.expression_coefficients(codes.expression[PARTNER][TURNED]))
    value = term("swapped_codes", read, truth, morphable)
    assert value > 0
    own = read.codes.identity[TURNED]
    perfect = dataclasses.replace(read, read_identity=own, read_coefficients=read.lent_coefficients)
    assert term("swapped_codes", perfect, truth, morphable) == 0


def test_the_encoder_is_held_still_while_it_reads(model, read, truth, morphable):
    """The gradient comes through the codes that were put in, and not through the second look."""
    again = [read.read_coefficients, read.read_identity]
    last = model.expression_coefficients.weight, model.heads["identity"].bias
    (picture,) = torch.autograd.grad(sum(x.sum() for x in again), read.swapped.image, retain_graph=True)
    assert picture.abs().max() > 0
    silent = torch.autograd.grad(sum(x.sum() for x in again), [last[0]], allow_unused=True, retain_graph=True)
    assert silent == (None,)


def test_the_carried_photo_teaches_the_encoder_and_not_the_painter(model, read):
    """Where the photo shows nothing of the turned face, its picture stands in as it is; the cycle does teach."""

    def of_picture(codes):
        total = codes.identity.sum() + codes.expression.sum() + codes.pose.sum()
        inputs = [read.turned.image, model.heads["identity"].weight]
        return torch.autograd.grad(total, inputs, allow_unused=True, retain_graph=True)

    picture, weight = of_picture(read.carried_codes)
    assert picture is None and weight.abs().max() > 0
    picture, weight = of_picture(read.turned_codes)
    assert picture.abs().max() > 0 and weight.abs().max() > 0


def test_a_face_stands_before_its_own_background(decoded, truth, training_config):
    mask = truth.mask[SURROUND] if training_config.known_mask else decoded.mask_logits.sigmoid()
    assert_close(decoded.composite, mask * decoded.face.image[SURROUND] + (1 - mask) * decoded.background)


def test_background_is_judged_behind_the_face_alone(decoded, truth, morphable):
    mask = truth.mask[SURROUND]
    elsewhere = dataclasses.replace(decoded, background=decoded.background + (1 - mask) * 9)
    value = term("background", decoded, truth, morphable)
    assert value > 0.01
    assert term("background", elsewhere, truth, morphable) == pytest.approx(value, rel=1e-5)
    filled = dataclasses.replace(decoded, background=fill_in(truth.image[SURROUND], mask))
    assert term("background", filled, truth, morphable) == pytest.approx(0, abs=1e-6)


def test_the_filling_knows_nothing_of_the_face(truth):
    picture, mask = truth.image, truth.mask
    filled = fill_in(picture, mask)
    assert_close(filled, fill_in(picture + mask * torch.rand_like(picture), mask))
    assert_close(filled * (1 - mask), picture * (1 - mask))
    around = picture.amin((2, 3), keepdim=True), picture.amax((2, 3), keepdim=True)
    assert ((filled >= around[0] - 1e-5) & (filled <= around[1] + 1e-5)).all()


def test_a_face_is_filled_in_with_its_margin(truth):
    near = torch.nn.functional.max_pool2d(truth.mask, 5, 1, 2)
    assert_close(fill_face(truth.image, truth.mask), fill_in(truth.image, near))
    assert (near - truth.mask).sum() > 0
    assert_close(fill_face(truth.image + near * torch.rand_like(near), truth.mask), fill_in(truth.image, near))


@pytest.mark.parametrize("side", [1, 5, 64])
def test_a_plain_picture_is_filled_with_its_colour(side):
    colour = torch.rand(2, 3, 1, 1).expand(2, 3, side, side)
    hole = (torch.rand(2, 1, side, side) > 0.5).float()
    hole[:, :, 0, 0] = 0
    assert_close(fill_in(colour, hole), colour)
    assert_close(fill_in(colour, torch.ones_like(hole)), torch.zeros_like(colour))


@pytest.mark.parametrize(("name", "part"), [("carried_codes", "carried_codes"), ("cycle", "turned_codes")])
def test_codes_that_come_back_cost_nothing(name, part, decoded, truth, morphable):
    spread = dataclasses.replace(decoded.codes, identity=torch.randn(6, 9), expression=torch.randn(6, 6))
    decoded = dataclasses.replace(decoded, codes=spread)
    same = dataclasses.replace(decoded.codes[TURNED], pose=truth.turned_rotation)
    assert term(name, dataclasses.replace(decoded, **{part: same}), truth, morphable) == 0
    shifted = dataclasses.replace(same, identity=same.identity + decoded.codes.identity.var(0).mean().sqrt())
    assert term(name, dataclasses.replace(decoded, **{part: shifted}), truth, morphable) == pytest.approx(1, rel=1e-4)
    turned = dataclasses.replace(same, pose=same.pose + 2)
    assert term(name, dataclasses.replace(decoded, **{part: turned}), truth, morphable) == pytest.approx(4, rel=1e-4)


def test_carried_photos_are_encoded_as_they_are_known(model, faces, training_config, morphable, monkeypatch):
    step, seen = TrainingStep(model, training_config, morphable), []
    perceive = model.perceive
    monkeypatch.setattr(model, "perceive", lambda images: seen.append(images) or perceive(images))
    with torch.no_grad():
        step(faces, 0)
    turned = faces[torch.tensor([1, 3, 5])]
    known = (turned.turned_weight == 255).expand(-1, 3, -1, -1)
    assert_close(seen[2][known], (turned.turned_image.float() / 255)[known])
    around = fill_face(turned.pictures(), turned.masks())
    outside = (turned.turned_mask == 0).expand(-1, 3, -1, -1)
    assert_close(seen[2][outside], around[outside])


class TestAdversary:
    @pytest.fixture
    def adversary(self, network_config, training_config):
        return Adversary(network_config, training_config)

    def test_the_network_is_judged_without_teaching_the_judge(self, adversary, decoded, truth, morphable):
        fake = decoded.composite.clone().requires_grad_()
        value = Objective(LossWeights(adversarial=1.0), morphable, adversary.error).terms["adversarial"](
            dataclasses.replace(decoded, composite=fake), truth
        )
        value.backward()
        expected = (adversary.discriminator(decoded.composite) - decoded.composite).abs().mean()
        assert_close(value, expected)
        assert fake.grad is not None and fake.grad.abs().sum() > 0
        assert all(parameter.grad is None for parameter in adversary.parameters())

    def test_the_discriminators_loss_is_eq_3_of_the_game(self, adversary, decoded, truth):
        real, fake = truth.image[SURROUND], decoded.composite
        adversary.k.fill_(0.3)
        with torch.no_grad():
            real_error, fake_error = (float((adversary.discriminator(v) - v).abs().mean()) for v in (real, fake))
            loss, errors = adversary.loss(real, fake)
        assert float(loss) == pytest.approx(real_error - 0.3 * fake_error, rel=1e-5)
        assert errors == pytest.approx({"real_error": real_error, "fake_error": fake_error}, rel=1e-5)
        adversary.update(real_error, fake_error)
        balance = 0.5 * real_error - fake_error
        assert float(adversary.k) == pytest.approx(0.3 + 0.001 * balance, rel=1e-5)
        assert adversary.convergence == pytest.approx(real_error + abs(balance), rel=1e-5)

    @pytest.mark.parametrize(("real", "fake", "end"), [(1.0, 0.0, 1.0), (0.0, 1.0, 0.0)])
    def test_the_balance_stays_between_zero_and_one(self, adversary, real, fake, end):
        adversary.k.fill_(0.5)
        for _ in range(2000):
            adversary.update(real, fake)
        assert float(adversary.k) == end

    def test_it_enters_late(self, model, faces, training_config, morphable, adversary):
        step = TrainingStep(model, training_config, morphable, adversary)
        with torch.no_grad():
            early, late = step(faces, 0, 0.4), step(faces, 0, 0.45)
        assert "adversarial" not in early.terms and late.terms["adversarial"] > 0
        assert step._ramps(0.45)["adversarial"] == pytest.approx(0.5) and step._ramps(1.0)["adversarial"] == 1
        assert not [name for name, _ in step.named_parameters() if "discriminator" in name]

    def test_it_waits_for_pictures(self, model, training_config, morphable, adversary):
        config = dataclasses.replace(training_config, codes_first=0.5, adversarial_start=0.3)
        step = TrainingStep(model, config, morphable, adversary)
        ramps = [step._ramps(done)["adversarial"] for done in (0.5, 0.55, 0.6)]
        assert ramps == pytest.approx([0.0, 0.5, 1.0])


def test_verification_is_one_minus_the_cosine(decoded, truth, morphable):
    class Body(torch.nn.Module):
        def forward(self, images):
            return images.mean((2, 3)) - 0.3

    facts = Facts("tiny", 32, FIVE_POINTS, "RGB", 3, 0.5, "none", "none", "made for tests")
    verifier = Verifier(Body(), facts)
    first, second = (verifier.describe(images) for images in (truth.image[SURROUND], decoded.composite))
    expected = 1 - torch.nn.functional.cosine_similarity(first, second).mean()
    assert term("verification", decoded, truth, morphable, verifier=verifier) == pytest.approx(
        float(expected), rel=1e-4
    )


@pytest.mark.parametrize("share", [0.25, 0.5, 0.3, 1.0, 0.0])
def test_rows_do_not_depend_on_how_the_batch_is_split(share):
    whole = strided(40, share).tolist()
    parts = [first + row for first in (0, 20) for row in strided(20, share).tolist()]
    assert whole == parts and len(whole) == 40 * share


@given(st.integers(1, 50), st.floats(0, 1))
def test_a_share_of_the_rows_is_never_empty_and_never_too_large(count, share):
    rows = strided(count, share)
    assert len(rows.unique()) == len(rows) and len(rows) == (max(1, int(count * share + 1e-9)) if share else 0)
