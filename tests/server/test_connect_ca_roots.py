"""The roots over time: how one takes the place of another, how long a former one is trusted, when another is due."""

import msgspec
import pytest

from lictor.ca import certificates
from lictor.ca.provider import Authority, ProviderError
from lictor.model.connect_ca import CARoot
from lictor.server.connect_ca_roots import active_of, as_root, continued, gone_at, pruned, renew_at, rotated
from tests.ca.authorities import CLUSTER, DAY, NOW, Root, make_leaf, make_root

LEAF = 3 * DAY


def row(made: Root) -> CARoot:
    return as_root(Authority(made.root), CLUSTER, LEAF)


def test_what_is_known_of_a_root_is_what_its_certificate_says() -> None:
    made = make_root()
    found, said = row(made), certificates.read_certificate(made.root)
    assert (found.id, found.serial_number, found.signing_key_id) == (said.id, said.serial, said.signing_key_id)
    assert found.active and not found.intermediates and found.issuer_not_after == said.not_after


def test_a_leaf_is_no_root() -> None:
    with pytest.raises(ProviderError, match="no certificate authority"):
        as_root(Authority(make_leaf(make_root())), CLUSTER, LEAF)


def test_a_former_root_is_trusted_until_its_leaves_have_ended_twice_over() -> None:
    first, second = make_root(), make_root()
    crossed = certificates.cross_sign(first.root, first.key, second.root, NOW, 5)
    roots = rotated([row(first)], row(second), crossed, NOW)
    old, new = roots
    assert (old.active, old.retired, new.active, new.crosses) == (False, NOW, True, (crossed,))
    assert gone_at(old) == NOW + 2 * LEAF
    assert pruned(roots, NOW + 2 * LEAF - 1) == roots
    assert pruned(roots, NOW + 2 * LEAF) == (msgspec.structs.replace(new, crosses=()),)


def test_a_former_root_that_has_ended_is_trusted_no_longer() -> None:
    first, second = make_root(seconds=DAY), make_root()
    roots = rotated([row(first)], row(second), "", NOW)
    assert gone_at(roots[0]) == NOW + DAY


def test_the_chain_to_every_former_root_is_kept_while_one_is_trusted() -> None:
    first, second, third = make_root(), make_root(), make_root()
    one = certificates.cross_sign(first.root, first.key, second.root, NOW, 5)
    two = certificates.cross_sign(second.root, second.key, third.root, NOW, 6)
    roots = rotated([row(first)], row(second), one, NOW)
    roots = rotated(roots, row(third), two, NOW + DAY)
    assert [root.crosses for root in roots] == [(), (), (two, one)]
    later = pruned(roots, NOW + 2 * LEAF)
    assert [root.id for root in later] == [root.id for root in roots[1:]]
    assert later[-1].crosses == (two, one)


def test_a_root_that_comes_back_is_trusted_as_the_new_one() -> None:
    first, second = make_root(), make_root()
    roots = rotated([row(first)], row(second), "", NOW)
    roots = rotated(roots, row(first), "", NOW + 1)
    assert [root.id for root in roots] == [row(second).id, row(first).id]
    back = active_of(roots)
    assert back is not None and back.id == row(first).id and back.retired == 0


def test_shorter_lives_of_leaves_do_not_shorten_the_trust_in_a_root_that_gave_longer_ones() -> None:
    made = make_root()
    before = (row(made),)
    shorter = as_root(Authority(made.root), CLUSTER, DAY)
    assert continued(before, shorter)[0].leaf_life == LEAF
    assert continued((shorter,), row(made))[0].leaf_life == LEAF


@pytest.mark.parametrize(
    ("life", "leaf", "left"),
    [(3650 * DAY, 3 * DAY, 365 * DAY), (100 * DAY, 20 * DAY, 50 * DAY), (100 * DAY, 5 * DAY, 15 * DAY)],
)
def test_another_root_is_due_before_this_one_ends(life: float, leaf: float, left: float) -> None:
    found = as_root(Authority(make_root(seconds=life).root), CLUSTER, leaf)
    assert renew_at(found) == pytest.approx(NOW + life - left, abs=certificates.LEEWAY)
