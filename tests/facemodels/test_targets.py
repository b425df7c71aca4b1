import math

import pytest
import torch
from torch.testing import assert_close

from facemodels.errors import InputError
from facemodels.fitting.shape import Fit
from facemodels.fitting.targets import Cleaning, PoseTransfer, PoseTrend, principal_axes
from facemodels.morphable import MorphableModel
from facemodels.rendering import euler_to_matrix


@pytest.fixture(scope="module")
def morphable():
    return MorphableModel.procedural()


def noise(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def fits(morphable):
    """Fits whose coefficients depend on the pose, and whose identity copies the expression."""
    count = 600
    angles = 0.3 * noise(3, count, seed=0)
    yaw = angles[0, :, None]
    expression = noise(count, morphable.n_expression, seed=1)
    identity = noise(count, morphable.n_identity, seed=2)
    expression[:, :4] *= 3  # a few expressions that all people make
    leak = noise(4, morphable.n_identity, seed=3)
    identity = identity + expression[:, :4] @ leak + yaw.square() * noise(1, morphable.n_identity, seed=4)
    return Fit(
        rotation=euler_to_matrix(*angles),
        scale=0.3 + 0.01 * angles[0].square(),
        shift=32 + torch.stack([10 * angles[0], 20 * angles[1]], dim=1) + 0.1 * noise(count, 2, seed=5),
        identity=identity,
        expression=expression + 2 * yaw,
        error=torch.zeros(count),
    )


def correlation(first, second):
    first, second = ((values - values.mean(0)) / values.std(0) for values in (first, second))
    return first.T @ second / len(first)


class TestPoseTrend:
    @pytest.mark.parametrize("degree", [1, 2])
    def test_recovers_a_polynomial(self, degree):
        yaw, pitch, roll = 0.3 * noise(3, 200, seed=0)
        values = torch.stack(
            [1 + 2 * yaw - pitch, 3 * roll + (yaw * pitch + yaw.square() if degree == 2 else 0)], dim=1
        )
        rotation = euler_to_matrix(yaw, pitch, roll)
        trend = PoseTrend.fit(rotation, values, degree)
        assert_close(trend(rotation).float(), values, atol=1e-4, rtol=0)
        usual = torch.tensor(0.0), trend.pitch.float(), torch.tensor(0.0)
        assert_close(trend(euler_to_matrix(*usual)[None])[0], trend.frontal, atol=1e-5, rtol=0)

    def test_poses_that_never_vary(self):
        values = noise(50, 2, seed=0)
        trend = PoseTrend.fit(torch.eye(3).expand(50, 3, 3), values)
        assert_close(trend(torch.eye(3)[None])[0].float(), values.mean(0))

    def test_rejects_too_few_faces(self):
        with pytest.raises(InputError, match=r"only 5 faces to learn from.*30 or more; add photos"):
            PoseTrend.fit(torch.eye(3).expand(5, 3, 3), torch.zeros(5, 1))


class TestPoseTransfer:
    def test_own_pose_changes_nothing(self, fits):
        transfer = PoseTransfer.fit(fits)
        turned = transfer.turn(fits, fits.rotation)
        for name, value in vars(fits).items():
            assert_close(getattr(turned, name), value, atol=1e-5, rtol=1e-5)

    def test_the_trend_moves_and_the_rest_stays(self, fits):
        transfer = PoseTransfer.fit(fits)
        poses = fits.rotation.flip(0)
        turned = transfer.turn(fits, poses)
        assert_close(turned.shift, fits.shift + (fits.shift.flip(0) - fits.shift), atol=1.0, rtol=0)
        back = transfer.turn(turned, fits.rotation)
        assert_close(back.identity, fits.identity, atol=1e-4, rtol=0)
        assert_close(back.shift, fits.shift, atol=1e-4, rtol=0)


class TestPrincipalAxes:
    def test_is_a_change_of_basis(self, morphable):
        coefficients = (noise(500, 6, seed=0) @ noise(6, 6, seed=1)).double()
        coefficients = coefficients - coefficients.mean(0)
        basis = morphable.identity[:6].double()
        to_unit, from_unit = principal_axes(coefficients, basis)
        assert_close(to_unit @ from_unit, torch.eye(6, dtype=torch.float64), atol=1e-6, rtol=0)
        units = coefficients @ to_unit
        assert_close(units.T @ units / 500, torch.eye(6, dtype=torch.float64), atol=1e-6, rtol=0)
        displacement = torch.tensordot(from_unit, basis, 1).flatten(1)
        size = displacement.norm(dim=1)
        assert (size.diff() <= 1e-9).all()
        cosine = (displacement / size[:, None]) @ (displacement / size[:, None]).T
        assert_close(cosine, torch.eye(6, dtype=torch.float64), atol=1e-5, rtol=0)

    def test_direction_that_no_face_uses(self, morphable):
        coefficients = noise(100, 3, seed=0).double()
        coefficients[:, 1] = 0
        units = coefficients @ principal_axes(coefficients, morphable.identity[:3].double())[0]
        assert units.isfinite().all()
        assert units[:, 2].abs().max() < 1e-6


class TestCleaning:
    def test_unit_variance_and_no_correlation(self, fits, morphable):
        identity, expression = Cleaning.fit(fits, morphable)(fits)
        for values in (identity, expression):
            covariance = values.T @ values / len(values)
            variance = covariance.diagonal()
            assert_close(covariance - variance.diag(), torch.zeros_like(covariance), atol=1e-3, rtol=0)
            assert_close(variance[:-5], torch.ones(len(variance) - 5), atol=1e-3, rtol=0)
            assert variance[-5:].max() < 1.001  # what hardly moves the surface may keep less
        assert expression.shape[1] == 28 and identity.shape[1] == morphable.n_identity

    def test_identity_is_free_of_expression_and_pose(self, fits, morphable):
        identity, expression = Cleaning.fit(fits, morphable)(fits)
        yaw = torch.atan2(-fits.rotation[:, 2, 0], fits.rotation[:, 2, 2])
        assert correlation(identity, expression[:, :3]).abs().max() < 1e-3
        assert correlation(identity, torch.stack([yaw, yaw.square()], dim=1)).abs().max() < 1e-3
        assert correlation(expression, yaw[:, None]).abs().max() < 1e-3
        assert correlation(fits.identity, fits.expression).abs().max() > 0.5  # before

    def test_shape_is_kept_exactly(self, fits, morphable):
        """The set's own model with the cleaned coefficients is the raw shape, less what the pose predicts."""
        cleaning = Cleaning.fit(fits, morphable)
        cleaned = cleaning.morphable.vertices(*cleaning(fits[:5]))
        identity = fits.identity - cleaning.identity_trend(fits.rotation) + cleaning.identity_trend.frontal
        expression = fits.expression - cleaning.expression_trend(fits.rotation) + cleaning.expression_trend.frontal
        expected = morphable.vertices(identity[:5].float(), expression[:5].float())
        assert_close(cleaned, expected, atol=5e-3, rtol=0)  # mm

    def test_learns_from_training_faces_alone(self, fits, morphable):
        cleaning = Cleaning.fit(fits[:400], morphable)
        alone = cleaning(fits[400:410])
        together = cleaning(fits)
        assert_close(alone[0], together[0][400:410], atol=1e-4, rtol=1e-4)
        assert_close(alone[1], together[1][400:410], atol=1e-4, rtol=1e-4)

    def test_more_coefficients_than_faces(self, fits, morphable):
        cleaning = Cleaning.fit(fits[:40], morphable)
        identity, expression = cleaning(fits[:40])
        assert identity.isfinite().all() and expression.isfinite().all()
        assert identity.square().mean(0).max() < 1.01

    def test_rejects_too_few_faces(self, fits, morphable):
        with pytest.raises(InputError, match=r"only 7 faces"):
            Cleaning.fit(fits[:7], morphable)

    def test_names_itself(self, fits, morphable):
        own = Cleaning.fit(fits, morphable).morphable
        assert own.name == f"{morphable.name}, fitted to 600 photos"
        assert own.licence == morphable.licence
        assert math.isclose(len(own.expression_names), 28)
