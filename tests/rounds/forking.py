"""What `decentra recover` does, on the files of a simulated machine."""

from decentra.identity.signing import IdentitySigner
from decentra.rounds import catchup, recovery
from decentra.rounds.founding import empty_tensors
from sims.experiments.protocol_fuzz.swarm import Swarm
from sims.experiments.protocol_fuzz.watched import WatchedStore


def recover(swarm: Swarm, node, keep, by=None):
    """Force a view of `keep` on the files of a stopped node, signed by node `by` (default: the founder). Gives what is reached."""
    swarm.say(f"EVENT recover {node.name} keeping {', '.join(n.name for n in keep)}")
    store = WatchedStore.open(node.files)
    store.swarm, store.node = swarm, node
    tensors = empty_tensors(swarm.run.layout)
    reached = catchup.restore(store, swarm.run, tensors)
    signer = IdentitySigner((by or swarm.nodes[0]).identity)
    return recovery.force(store, swarm.run, reached, tensors, signer, [n.peer for n in keep])


async def stop_and_recover(swarm: Swarm, node, keep):
    """Stop a node, recover it, start it again; waits until it lives. Gives the lineage that begins."""
    if node.member is not None:
        swarm.kill(node)
    name = recover(swarm, node, keep).state.lineage
    swarm.boot(node)
    await swarm.until(lambda: node.member is not None)
    return name
