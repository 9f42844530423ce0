"""How a named test of the protocol is played."""

from decentra.wire.v1 import rounds_pb2
from sims.experiments.protocol_fuzz.swarm import Swarm, play


def swarm_of(count, story, **settings):
    """Play `story(swarm)` once `count` members have started."""

    async def whole(swarm):
        await swarm.start(count)
        await swarm.until(lambda: swarm.newest().state.sync >= 1, what="the first sync")
        await story(swarm)

    return play(Swarm(**{"seed": 2, "start_members": count, "stop_syncs": 8, **settings}), whole)


def follower(swarm, leader):
    """A member that does not lead and is not the oldest, which decides ties."""
    return next(n for n in swarm.live() if n is not leader and n.number != 0)


class Lying:
    """A node's handler that answers some calls with what `answer(sender, request, true reply)` gives."""

    def __init__(self, node, answer):
        self.server, self.answer, self.asked = node.transport.handler, answer, []
        node.transport.handler = self

    async def on_call(self, sender, request):
        message = rounds_pb2.Request.FromString(request)
        self.asked.append(message.WhichOneof("kind"))
        reply = rounds_pb2.Reply.FromString(await self.server.on_call(sender, request))
        return (self.answer(sender, message, reply) or reply).SerializeToString()

    async def on_pull(self, sender, request):
        async for frame in self.server.on_pull(sender, request):
            yield frame


async def tell(swarm, node, sender, **kind):
    """One message, given straight to a node's handler."""
    request = rounds_pb2.Request(run_id=swarm.run.run_id, **kind)
    return rounds_pb2.Reply.FromString(await node.transport.handler.on_call(sender, request.SerializeToString()))
