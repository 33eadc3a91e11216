"""DNS requests that agents pass on, because what they hold of the catalog does not answer them."""

from lictor.agent.forwarding import RESOLVE, decode_question
from lictor.dns.server import DnsServer
from lictor.model.errors import InvalidRequest
from lictor.model.transport import UNREADABLE, Caller, Transport


def serve_questions(dns: DnsServer, transport: Transport) -> None:
    """Answer them from now on, as if they had come to this server's own door."""

    async def answer(caller: Caller, body: bytes) -> bytes:
        try:
            question = decode_question(body)
        except UNREADABLE as error:
            raise InvalidRequest(f"the request cannot be read: {error}") from None
        return await dns.ask(question.packet, question.sender, question.tcp)

    transport.on_call(RESOLVE, answer, agents=True)
