"""The models that may be asked for."""

from __future__ import annotations

from typing import Any

import msgspec

from cert.core.errors import UpstreamProtocolError, UpstreamUnavailableError
from cert.services.hamiltonian.passthrough.engine import Engine, Refusal
from cert.services.hamiltonian.state import HamiltonianState

__all__ = ["models_of"]


async def models_of(state: HamiltonianState) -> dict[str, Any]:
    """Return the models of this process and of the engine, as OpenAI's API lists them.

    Raises:
        CertError: the engine has to be asked, and cannot be.
    """
    cards = []
    for name, monitor in state.models.shared():
        gate = monitor.config.profile if monitor.gate is None else monitor.gate.profile
        here = {"analyze": True, "calibrated": monitor.gate is not None, "gate": gate}
        cards.append({"id": name, "object": "model", "created": 0, "owned_by": "cert", "cert": here})
    known = {card["id"] for card in cards if state.is_local(str(card["id"]))}
    if state.engine is not None:
        for card in await _of_engine(state.engine):
            if card["id"] not in known:
                gated = card["id"] in state.engine.options.gates
                cards.append(card | {"cert": {"analyze": False, "calibrated": gated}})
    return {"object": "list", "data": cards}


async def _of_engine(engine: Engine) -> list[dict[str, Any]]:
    if engine.options.models:
        frame = {"object": "model", "created": 0, "owned_by": "engine"}
        return [{"id": name, **frame} for name in engine.options.models]
    response = await engine.models()
    if isinstance(response, Refusal):
        raise UpstreamUnavailableError("the engine does not list its models")
    try:
        found = msgspec.json.decode(await engine.whole(response))
        return [
            {"object": "model", "created": 0, "owned_by": "engine"} | card
            for card in found["data"]
            if isinstance(card["id"], str)
        ]
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise UpstreamProtocolError("the engine's list of models cannot be read") from error
