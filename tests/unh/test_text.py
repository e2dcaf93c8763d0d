"""Group 17: text in full feature phase (RFC 7143 §6.2, §6.4, §11.10, §11.11, Appendix C)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from blockyard.iscsi.negotiation import decode_text, encode_text
from blockyard.iscsi.pdu import (
    NO_TAG,
    LogoutReason,
    LogoutResponse,
    LogoutResponseCode,
    Reject,
    RejectReason,
    TextRequest,
    TextResponse,
)
from tests.unh.station import Line, Prepared, Station, check_reject
from tests.wire import TARGET, Rig

SEGMENT = "MaxRecvDataSegmentLength"
ALIAS = ("InitiatorAlias", "a" * 240)
RECORD = [("TargetName", TARGET), ("TargetAddress", "127.0.0.1:3260,1")]


@pytest.fixture
def discovery(rig: Rig) -> Callable[[], Line]:
    """A connection of a discovery session."""
    return lambda: Station(rig, discovery=True).connect()


def unfinished(line: Line, pairs: list[tuple[str, str]]) -> tuple[TextRequest, TextResponse]:
    """A text request with F=0, and its answer, which must not have F either."""
    request = line.text(pairs, final=False)
    answer = line.ask(request, TextResponse)
    assert answer.itt == request.itt
    assert not answer.final
    assert answer.ttt != NO_TAG
    assert len(answer.data) <= line.connection.peer_segment
    return request, answer


def finish(line: Line, request: TextRequest, answer: TextResponse) -> None:
    """An empty text request with F=1 ends the exchange."""
    end = line.ask(line.text([], itt=request.itt, ttt=answer.ttt, lun=answer.lun), TextResponse)
    assert (end.final, end.ttt, len(end.data)) == (True, NO_TAG, 0)


def test_ffp_17_1_1_fields_of_a_text_response(discovery: Callable[[], Line]) -> None:
    """SendTargets=All with F=0: the same task tag, no F, a target transfer tag, no more data than may come."""
    line = discovery()
    request, answer = unfinished(line, [("SendTargets", "All")])
    assert decode_text(answer.data) == RECORD
    finish(line, request, answer)


def test_ffp_17_1_2_fields_of_a_text_response_in_a_normal_session(prepared: Prepared) -> None:
    """MaxRecvDataSegmentLength with F=0, then an empty request with F=1; from then on the new length holds."""
    line = prepared()
    request, answer = unfinished(line, [(SEGMENT, "1024")])
    finish(line, request, answer)
    assert line.segments(16) == [1024] * 8


def test_ffp_17_2_1_final_bit(discovery: Callable[[], Line]) -> None:
    """The answer to a request without F has no F."""
    unfinished(discovery(), [("SendTargets", "All")])


def test_ffp_17_2_2_final_bit_in_a_normal_session(prepared: Prepared) -> None:
    """The answer to a request without F has no F."""
    unfinished(prepared(), [(SEGMENT, "1024")])


def test_ffp_17_3_1_send_targets_all(discovery: Callable[[], Line]) -> None:
    """SendTargets=All in a discovery session: the records of all targets."""
    line = discovery()
    assert line.pairs(line.text([("SendTargets", "All")])) == RECORD


def test_ffp_17_3_2_send_targets_of_no_name_in_discovery(discovery: Callable[[], Line]) -> None:
    """SendTargets= without a name, in a discovery session that names no target: answered, with no made-up name."""
    line = discovery()
    for key, value in line.pairs(line.text([("SendTargets", "")])):
        assert (key, value) in [*RECORD, ("SendTargets", "Reject")]


def test_ffp_17_3_3_send_targets_all_in_a_normal_session(prepared: Prepared) -> None:
    """SendTargets=All in a normal session: Reject."""
    line = prepared()
    assert line.pairs(line.text([("SendTargets", "All")])) == [("SendTargets", "Reject")]


def test_ffp_17_3_4_send_targets_of_no_name(prepared: Prepared) -> None:
    """SendTargets= in a normal session: the record of its own target."""
    line = prepared()
    assert line.pairs(line.text([("SendTargets", "")])) == RECORD


def test_ffp_17_3_5_send_targets_of_a_name(discovery: Callable[[], Line]) -> None:
    """SendTargets=NAME in a discovery session: the record of that target only."""
    line = discovery()
    assert line.pairs(line.text([("SendTargets", TARGET)])) == RECORD
    assert line.pairs(line.text([("SendTargets", "iqn.2026-11.test:other")])) == []


def test_ffp_17_4_1_segment_length_in_discovery(discovery: Callable[[], Line]) -> None:
    """MaxRecvDataSegmentLength in a discovery session is answered or taken, and the session goes on.

    The case wants Irrelevant, after RFC 3720; RFC 7143 §13.12 has the key in all sessions.
    """
    line = discovery()
    assert line.pairs(line.text([(SEGMENT, "512")])) in ([], [(SEGMENT, "Irrelevant")])
    assert line.pairs(line.text([("SendTargets", "All")])) == RECORD


def test_ffp_17_4_2_logout_for_recovery_in_discovery(discovery: Callable[[], Line]) -> None:
    """Logout with reason 2 in a discovery session: recovery is not supported."""
    line = discovery()
    line.pairs(line.text([("SendTargets", "All")]))
    answer = line.ask(line.log_out(LogoutReason.RECOVERY), LogoutResponse)
    assert answer.response == LogoutResponseCode.RECOVERY_UNSUPPORTED


def test_ffp_17_5_another_task_tag(prepared: Prepared) -> None:
    """A text exchange that goes on with another task tag: what is rejected is rejected properly."""
    line = prepared()
    _, answer = unfinished(line, [(SEGMENT, "1024")])
    other = line.text([ALIAS], ttt=answer.ttt, lun=answer.lun)
    line.send(other)
    (reply,) = line.receive()
    assert isinstance(reply, Reject), "the exchange belongs to another task (RFC 7143 §11.10.3)"
    check_reject(reply, other)


def test_ffp_17_6_negotiate_once(prepared: Prepared) -> None:
    """A key that comes twice in one exchange is a protocol error; after a reset it may come again, and holds."""
    line = prepared()
    request, answer = unfinished(line, [(SEGMENT, "512")])
    again = line.text([(SEGMENT, "512")], final=False, itt=request.itt, ttt=answer.ttt, lun=answer.lun)
    rejection = line.ask(again, Reject)
    check_reject(rejection, again)
    assert rejection.reason == RejectReason.PROTOCOL_ERROR
    request, answer = unfinished(line, [(SEGMENT, "512")])
    finish(line, request, answer)
    line.prepare()
    assert line.segments(4) == [512] * 4


def test_ffp_17_7_1_negotiation_reset(prepared: Prepared) -> None:
    """A request with the reserved target transfer tag begins anew: what was not finished before counts for nothing."""
    line = prepared()
    first, answer = unfinished(line, [(SEGMENT, "512")])
    line.send(line.text([ALIAS], ttt=answer.ttt, lun=answer.lun))
    assert isinstance(line.receive()[0], Reject | TextResponse)
    request, answer = unfinished(line, [(SEGMENT, "512")])
    assert request.itt != first.itt
    finish(line, request, answer)
    line.prepare()
    assert line.segments(4) == [512] * 4


def test_ffp_17_7_2_negotiation_that_is_not_finished(prepared: Prepared) -> None:
    """A text exchange that is never finished changes nothing."""
    line = prepared(MaxRecvDataSegmentLength="1024")
    unfinished(line, [(SEGMENT, "512")])
    assert line.segments(8) == [1024] * 4


def test_ffp_17_7_3_negotiation_that_fails(prepared: Prepared) -> None:
    """A value that the key cannot have is refused and changes nothing; a good one holds afterwards."""
    line = prepared(MaxRecvDataSegmentLength="8192")
    line.send(line.text([(SEGMENT, "511")]))
    (reply,) = line.receive()
    assert isinstance(reply, Reject) or decode_text(reply.data) == [(SEGMENT, "Reject")]
    assert line.segments(4) == [2048]
    assert line.pairs(line.text([(SEGMENT, "512")])) == []
    assert line.segments(4) == [512] * 4


def test_ffp_17_8_1_text_over_two_requests(prepared: Prepared) -> None:
    """Text that is continued: first an empty answer, then NotUnderstood for the unknown keys."""
    line = prepared(MaxRecvDataSegmentLength="512")
    text = encode_text([ALIAS, ("X-cbit.example.test1", "x" * 250), ("X-cbit.example.test2", "y" * 200)])
    first = line.text([], final=False, continued=True)
    first.data = text[:600]
    answer = line.ask(first, TextResponse)
    assert (answer.final, answer.continued, len(answer.data), answer.itt) == (False, False, 0, first.itt)
    second = line.text([], itt=first.itt, ttt=answer.ttt, lun=answer.lun)
    second.data = text[600:]
    answers = line.pairs(second)
    assert answers == [("X-cbit.example.test1", "NotUnderstood"), ("X-cbit.example.test2", "NotUnderstood")]


def test_ffp_17_8_2_continued_and_final(prepared: Prepared) -> None:
    """C and F together are an error, and what such a request says counts for nothing."""
    line = prepared(MaxRecvDataSegmentLength="1024")
    assert line.segments(4) == [1024] * 2
    wrong = line.text([(SEGMENT, "512")], continued=True)
    rejection = line.ask(wrong, Reject)
    check_reject(rejection, wrong)
    assert line.segments(4) == [1024] * 2


def test_ffp_17_8_3_a_key_over_two_requests(prepared: Prepared) -> None:
    """A key that is cut in two by the end of a request is put together again, and holds."""
    line = prepared(MaxRecvDataSegmentLength="1024")
    assert line.segments(4) == [1024] * 2
    text = encode_text([ALIAS, ("X-cbit.example.test1", "x" * 250), (SEGMENT, "512")])
    cut = text.index(SEGMENT.encode()) + len("MaxRecvDataSegment")
    first = line.text([], final=False, continued=True)
    first.data = text[:cut]
    answer = line.ask(first, TextResponse)
    assert len(answer.data) == 0
    second = line.text([], itt=first.itt, ttt=answer.ttt, lun=answer.lun)
    second.data = text[cut:]
    assert line.pairs(second) == [("X-cbit.example.test1", "NotUnderstood")]
    assert line.segments(4) == [512] * 4
