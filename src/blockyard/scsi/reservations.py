"""Persistent reservations (SPC-4 5.13, and SPC-5 under the same names): the state of one logical unit and its rules.

A registration is a reservation key of one I_T nexus; it outlives the session, so that I_T nexuses are known here by their
names. `State` never changes: each service action of PERSISTENT RESERVE OUT is a function from one state to a `Change`, which
carries the next one and what follows from it. Nothing is half done when one fails, and what has to survive loss of power
is on stable storage before it takes effect (scsi/reserving.py).

Errors are raised as the statuses and sense data that the standard names: RESERVATION CONFLICT for a nexus that may not, and
for a wrong key; ILLEGAL REQUEST for what cannot be.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum

from blockyard.scsi import limits
from blockyard.scsi.cdb import Conflict
from blockyard.scsi.nexus import ITNexus
from blockyard.scsi.sense import Asc, CheckCondition, SenseKey, StatusCondition, invalid_field, invalid_parameter
from blockyard.scsi.task import Status


class Type(IntEnum):
    """Persistent reservation types (SPC-4 6.15.3.4)."""

    WRITE_EXCLUSIVE = 1
    EXCLUSIVE_ACCESS = 3
    WRITE_EXCLUSIVE_REGISTRANTS_ONLY = 5
    EXCLUSIVE_ACCESS_REGISTRANTS_ONLY = 6
    WRITE_EXCLUSIVE_ALL_REGISTRANTS = 7
    EXCLUSIVE_ACCESS_ALL_REGISTRANTS = 8

    @property
    def exclusive(self) -> bool:
        """Whether others may not even read."""
        return self in (
            Type.EXCLUSIVE_ACCESS,
            Type.EXCLUSIVE_ACCESS_REGISTRANTS_ONLY,
            Type.EXCLUSIVE_ACCESS_ALL_REGISTRANTS,
        )

    @property
    def for_registrants(self) -> bool:
        """Whether every registered I_T nexus has access."""
        return self >= Type.WRITE_EXCLUSIVE_REGISTRANTS_ONLY

    @property
    def held_by_all(self) -> bool:
        """Whether every registered I_T nexus is a holder."""
        return self >= Type.WRITE_EXCLUSIVE_ALL_REGISTRANTS


@dataclass(frozen=True)
class State:
    """Registrations, and the reservation if there is one. `keys` is never changed in place."""

    generation: int = 0  # PRgeneration
    keys: Mapping[ITNexus, int] = field(default_factory=dict)
    type: Type | None = None  # None: no reservation
    holder: ITNexus | None = None  # None also where all registrants hold it
    aptpl: bool = False  # persist through power loss is activated

    def holds(self, nexus: ITNexus) -> bool:
        """Whether `nexus` is a persistent reservation holder (SPC-4 5.13.10)."""
        if self.type is None:
            return False
        return nexus in self.keys if self.type.held_by_all else nexus == self.holder

    @property
    def holder_key(self) -> int:
        """The reservation key that READ RESERVATION tells: zero where all registrants hold it."""
        return 0 if self.holder is None else self.keys[self.holder]

    def allows(self, nexus: ITNexus, conflict: Conflict) -> bool:
        """Whether a command of this class may come from `nexus` (SPC-4 table 65, SBC-4 table 13)."""
        if self.type is None or conflict is Conflict.NEVER or conflict is Conflict.KEY or self.holds(nexus):
            return True
        if self.type.for_registrants and nexus in self.keys:
            return True
        return conflict is Conflict.EXCLUSIVE_ACCESS and not self.type.exclusive


@dataclass(frozen=True)
class Change:
    """The next state, the unit attentions that it brings, and whose commands PREEMPT AND ABORT aborts."""

    state: State
    attentions: Mapping[ITNexus, Asc] = field(default_factory=dict)
    preempted: frozenset[ITNexus] = frozenset()


def register(
    state: State,
    nexus: ITNexus,
    key: int | None,
    new_key: int,
    *,
    same_initiator: Collection[ITNexus] = (),
    others: Collection[ITNexus] | None = None,
    aptpl: bool,
) -> Change:
    """REGISTER, and with None as `key` REGISTER AND IGNORE EXISTING KEY (SPC-4 5.13.7).

    `same_initiator` are the nexuses of the same initiator port through the other target ports, with ALL_TG_PT; `others` those
    of the TransportIDs, with SPEC_I_PT.
    """
    known = state.keys.get(nexus, 0)
    if key is not None and key != known:
        raise StatusCondition(Status.RESERVATION_CONFLICT)
    if known and others is not None:
        raise invalid_parameter(20, 3)  # SPEC_I_PT is for nexuses that are not registered
    if not new_key:
        chosen = [it for it in (nexus, *same_initiator) if state.keys.get(it) == known]
        return _unregister(replace(state, aptpl=aptpl), chosen, nexus) if known else Change(state)
    if any(other in state.keys for other in others or ()):
        raise invalid_parameter(28)
    if key is not None and any(state.keys.get(it, known) not in (known, new_key) for it in same_initiator):
        raise StatusCondition(Status.RESERVATION_CONFLICT)
    keys = {**state.keys, **dict.fromkeys((nexus, *same_initiator, *(others or ())), new_key)}
    return Change(_with_keys(replace(state, aptpl=aptpl), keys))


def reserve(state: State, nexus: ITNexus, key: int, scope: int, code: int) -> Change:
    """RESERVE (SPC-4 5.13.9)."""
    _authenticate(state, nexus, key)
    kind = _type(scope, code)
    if state.type is None:
        return Change(_reserved(state, nexus, kind))
    if state.holds(nexus) and state.type is kind:
        return Change(state)
    raise StatusCondition(Status.RESERVATION_CONFLICT)


def release(state: State, nexus: ITNexus, key: int, scope: int, code: int) -> Change:
    """RELEASE (SPC-4 5.13.11.2.2)."""
    _authenticate(state, nexus, key)
    if state.type is None or not state.holds(nexus):
        return Change(state)
    if scope or code != state.type:
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.INVALID_RELEASE_OF_PERSISTENT_RESERVATION)
    told = state.keys if state.type.for_registrants else ()
    return Change(_released(state), _attention(told, Asc.RESERVATIONS_RELEASED, but=nexus))


def clear(state: State, nexus: ITNexus, key: int) -> Change:
    """CLEAR (SPC-4 5.13.11.2.7)."""
    _authenticate(state, nexus, key)
    told = _attention(state.keys, Asc.RESERVATIONS_PREEMPTED, but=nexus)
    return Change(_with_keys(_released(state), {}), told)


def preempt(state: State, nexus: ITNexus, key: int, victim: int, scope: int, code: int) -> Change:
    """PREEMPT, and PREEMPT AND ABORT without the aborting (SPC-4 5.13.11.2.4, table 72)."""
    _authenticate(state, nexus, key)
    if state.type is None:
        return _remove(state, nexus, victim)
    if state.type.held_by_all:
        if victim:
            return _remove(state, nexus, victim)
        doomed = set(state.keys)
    else:
        if not victim:
            raise invalid_parameter(8)
        if victim != state.holder_key:
            return _remove(state, nexus, victim)
        doomed = {it for it, theirs in state.keys.items() if theirs == victim}
    kind = _type(scope, code)
    keys = {it: theirs for it, theirs in state.keys.items() if it not in doomed or it == nexus}
    told = _attention(doomed, Asc.REGISTRATIONS_PREEMPTED, but=nexus)
    if kind is not state.type:
        told |= _attention(keys, Asc.RESERVATIONS_RELEASED, but=nexus)
    return Change(_reserved(_with_keys(_released(state), keys), nexus, kind), told, frozenset(doomed))


def register_and_move(
    state: State, nexus: ITNexus, key: int, new_key: int, to: ITNexus, *, unregister: bool, aptpl: bool
) -> Change:
    """REGISTER AND MOVE (SPC-4 5.13.8); `check_move` comes first."""
    if not new_key:
        raise invalid_parameter(8)
    if to.initiator == nexus.initiator:
        raise invalid_parameter(24)
    keys = {**state.keys, to: new_key}
    if unregister:
        del keys[nexus]
    return Change(replace(_with_keys(state, keys), holder=to, aptpl=aptpl))


def check_move(state: State, nexus: ITNexus, key: int) -> None:
    """Whether `nexus` may move the reservation (SPC-4 table 70)."""
    if nexus in state.keys and state.type is None:
        raise invalid_field(1, 4)
    if state.type is None or state.type.held_by_all or not state.holds(nexus):
        raise StatusCondition(Status.RESERVATION_CONFLICT)
    _authenticate(state, nexus, key)


def replace_lost(nexus: ITNexus, key: int, new_key: int, scope: int, code: int, *, aptpl: bool) -> Change:
    """REPLACE LOST RESERVATION, when there is one to be replaced (SPC-4 5.13.11.3)."""
    if key:
        raise invalid_parameter(0)
    if not new_key:
        raise invalid_parameter(8)
    return Change(_reserved(State(keys={nexus: new_key}, aptpl=aptpl), nexus, _type(scope, code)))


# ---- parts of them


def _authenticate(state: State, nexus: ITNexus, key: int) -> None:
    if nexus not in state.keys or state.keys[nexus] != key:
        raise StatusCondition(Status.RESERVATION_CONFLICT)


def _type(scope: int, code: int) -> Type:
    if scope:  # there is but LU_SCOPE
        raise invalid_field(2, 7)
    try:
        return Type(code)
    except ValueError:
        raise invalid_field(2, 3) from None


def _with_keys(state: State, keys: Mapping[ITNexus, int]) -> State:
    """With other registrations, which counts as a new generation."""
    if len(keys) > limits.REGISTRATIONS:
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.INSUFFICIENT_REGISTRATION_RESOURCES)
    return replace(state, generation=(state.generation + 1) & 0xFFFFFFFF, keys=keys)


def _reserved(state: State, nexus: ITNexus, kind: Type) -> State:
    return replace(state, type=kind, holder=None if kind.held_by_all else nexus)


def _released(state: State) -> State:
    return replace(state, type=None, holder=None)


def _unregister(state: State, chosen: Collection[ITNexus], nexus: ITNexus) -> Change:
    """Remove registrations at the wish of `nexus`, whose own they are (SPC-4 5.13.11.2.3)."""
    after = _without(state, chosen)
    released = state.type is not None and after.type is None and state.type.for_registrants
    return Change(after, _attention(after.keys if released else (), Asc.RESERVATIONS_RELEASED, but=nexus))


def _remove(state: State, nexus: ITNexus, victim: int) -> Change:
    """Remove the registrations with this key, and leave the reservation to its holder (SPC-4 5.13.11.2.5)."""
    doomed = [it for it, theirs in state.keys.items() if theirs == victim]
    if not doomed:
        raise StatusCondition(Status.RESERVATION_CONFLICT)
    told = _attention(doomed, Asc.REGISTRATIONS_PREEMPTED, but=nexus)
    return Change(_without(state, doomed), told, frozenset(doomed))


def _without(state: State, doomed: Collection[ITNexus]) -> State:
    """The reservation goes with its holder's registration, or with the last one where all hold it (SPC-4 table 71)."""
    after = _with_keys(state, {it: key for it, key in state.keys.items() if it not in doomed})
    held = state.type is not None and (bool(after.keys) if state.type.held_by_all else state.holder in after.keys)
    return after if held else _released(after)


def _attention(told: Collection[ITNexus], asc: Asc, *, but: ITNexus) -> dict[ITNexus, Asc]:
    return {it: asc for it in told if it != but}
