"""Balance, models and prices: what clients ask before they generate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from starlette.responses import Response

from castmate.clients.registry import licences, price_usd
from castmate.defaults import Defaults
from castmate.errors import InvalidRequest
from castmate.schema import GenerateRequest
from castmate.sizes import MAX_SIDE, MIN_SIDE
from castmate_mcp.http.envelope import Refusal, success
from castmate_mcp.rest.models import (
    Balance,
    ModelOut,
    Price,
    PriceQuery,
    Submission,
    UnitPrice,
    with_defaults,
)
from castmate_mcp.rest.operation import Call
from castmate_mcp.rest.submit import accepted

UNCAPPED: Final = 1_000_000.0
_NUMBERS: Final = ("num_images", "num_candidates", "min_identity")
_DESCRIPTION: Final = (
    "Keeps a character the same in every picture: one reference image and a prompt in, new "
    "pictures of that character out."
)


async def balance(call: Call) -> Response:
    """`GET /api/v3/balance`: what this key may still cause on the hosted service, in dollars."""
    left = await call.gateway.castmate.budget.left(call.key.name)
    return success(Balance(balance=UNCAPPED if left is None else left))


async def models(call: Call) -> Response:
    """`GET /api/v3/models`: a bare list, with the inputs of each as JSON schema."""
    settings = call.gateway.castmate.settings
    price = price_usd(settings)
    known = call.gateway.castmate.router.defaults
    terms, schema = licences(settings), request_schema(known)
    return success(
        [
            ModelOut(
                model_id=name,
                name=name,
                description=_DESCRIPTION,
                type="image-to-image",
                base_price=price,
                formula="",
                sort_order=number,
                licences=terms,
                defaults=known.model_dump() if known else {},
                styles=list(call.gateway.castmate.router.styles),
                api_schema={
                    "api_schemas": [
                        {
                            "type": "model_run",
                            "method": "POST",
                            "server": call.base_url,
                            "api_path": f"/api/v3/{name}",
                            "request_schema": schema,
                        }
                    ]
                },
            )
            for number, name in enumerate(call.gateway.models)
        ]
    )


async def price(call: Call) -> Response:
    """`POST /api/v3/model/price`."""
    query, usd = await _priced(call)
    return success(
        Price(model_id=query.model_id, price=usd, discounted_price=usd, discount_rate=0.0)
    )


async def pricing(call: Call) -> Response:
    """`POST /api/v3/model/pricing`: the older form."""
    query, usd = await _priced(call)
    return success(UnitPrice(model_id=query.model_id, unit_price=usd))


def request_schema(defaults: Defaults | None) -> dict[str, Any]:
    """The model's inputs; without references, which not every client follows."""
    schema = with_defaults(Submission.model_json_schema(), defaults)
    definitions = schema.pop("$defs", {})
    properties = {}
    for name, spec in schema["properties"].items():
        for kind in spec.pop("anyOf", ()):  # null, which is what is left out, and one other
            spec |= kind if kind["type"] != "null" else {}
        if "$ref" in spec:
            inlined = definitions[spec["$ref"].rpartition("/")[2]]
            kept = {key: value for key, value in inlined.items() if key in ("type", "enum")}
            spec = kept | {key: value for key, value in spec.items() if key != "$ref"}
        properties[name] = {key: value for key, value in spec.items() if key != "title"}
    properties["size"] |= {"minimum": MIN_SIDE, "maximum": MAX_SIDE}  # of each side, as theirs is
    return {
        "type": "object",
        "properties": properties,
        "required": schema["required"],
        "x-order-properties": list(properties),
        "additionalProperties": False,
    }


async def _priced(call: Call) -> tuple[PriceQuery, float]:
    query = await call.json(PriceQuery)
    if query.model_id not in call.gateway.models:
        raise Refusal(404, f"There is no model {query.model_id!r} here.")
    price = price_usd(call.gateway.castmate.settings) * _most_drawn(accepted(query.inputs))
    return query, round(price, 6)


def _most_drawn(inputs: Mapping[str, Any]) -> int:
    """How many pictures are paid at most; one where the numbers are no valid ones."""
    numbers = {name: inputs[name] for name in _NUMBERS if name in inputs}
    try:
        return GenerateRequest.parse({"prompt": "-", "image": "-", **numbers}).most_drawn
    except InvalidRequest:
        return 1
