"""Makes one key per owner."""

from __future__ import annotations

from bench.contract.fields import ContractError
from bench.contract.networks import clock_s
from bench.steps.ownership import owner_shares
from bench.steps.scheme_workspace import SchemeWorkspace, host_for, stored_keys
from bench.steps.workspace import Output

__all__ = ["make_keys"]


def make_keys(workspace: SchemeWorkspace) -> Output:
    """One key per owner."""
    scheme, start_s = workspace.scheme, clock_s(workspace.device)
    hosts = [host_for(workspace, share, number) for number, share in enumerate(owner_shares(workspace, scheme))]
    keys = [scheme.keygen(host, workspace.rng("key", workspace.spec["scheme"], i)) for i, host in enumerate(hosts)]
    for key in keys:
        if not isinstance(key, scheme.key_type):
            raise ContractError(f"Expected keygen to return a {scheme.key_type.__name__}, but got {key!r:.60}.")
    capacity = scheme.capacity(hosts[0])
    stored = stored_keys(keys)
    return Output(
        {
            **stored.result,
            "histories": hosts[0].notes,
            "capacity_bits": capacity and capacity.bits,
            "capacity_limit": capacity and capacity.limit,
            "capacity_most": capacity and capacity.most,
            "time_s": clock_s(workspace.device) - start_s,
        },
        stored.tensors,
    )
