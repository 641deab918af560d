"""Looks at predictions, lists, cancels and removes them; another key's are not there."""

from __future__ import annotations

from starlette.responses import Response

from castmate.jobs.predictions import Prediction, State
from castmate_mcp.http.envelope import Refusal, success
from castmate_mcp.rest.models import Deleted, DeletedCount, Ids, ListQuery, PredictionList
from castmate_mcp.rest.operation import Call
from castmate_mcp.rest.presenter import Presenter
from castmate_mcp.rest.submit import prediction_out


async def result(call: Call) -> Response:
    """`GET /api/v3/predictions/{id}/result` and `/{id}`: as it is now, at once."""
    return success(await prediction_out(call, await _find(call)))


async def list_predictions(call: Call) -> Response:
    """`POST /api/v3/predictions`: a page of one's own, the newest first."""
    query = await call.json(ListQuery)
    found: list[Prediction] = []
    known_model = query.model is None or query.model in call.gateway.models
    if known_model and query.status != "timeout":  # nothing ever ends so
        after, before = query.created_after, query.created_before
        found += await call.gateway.castmate.ledger.list(
            key_name=call.key.name,
            state=State(query.status) if query.status else None,
            created_after=after.timestamp() if after else None,
            created_before=before.timestamp() if before else None,
            limit=query.page_size,
            offset=(query.page - 1) * query.page_size,
        )
    # Base64 stands in single answers alone: a page of it could be a gigabyte.
    presenter = Presenter.to(call.gateway, call.request)
    items = [presenter.present(one, with_input=query.include_inputs) for one in found]
    return success(PredictionList(page=query.page, items=items))


async def delete_predictions(call: Call) -> Response:
    """`POST /api/v3/predictions/delete`: those that are finished; others are left alone."""
    ids = (await call.json(Ids)).ids
    count = await call.gateway.castmate.ledger.delete(ids, call.key.name)
    return success(DeletedCount(deleted_count=count))


async def delete_prediction(call: Call) -> Response:
    """`DELETE /api/v3/predictions/{id}`."""
    prediction = await _find(call)
    if not await call.gateway.castmate.ledger.delete([prediction.id], call.key.name):
        raise Refusal(
            409,
            f"Prediction {prediction.id} is {prediction.state.value}; cancel it first: "
            f"POST /api/v3/predictions/{prediction.id}/cancel.",
        )
    return success(Deleted(id=prediction.id))


async def cancel(call: Call) -> Response:
    """`POST /api/v3/predictions/{id}/cancel`: of Castmate alone."""
    name = call.request.path_params["id"]
    prediction = await call.gateway.castmate.ledger.cancel(name, call.key.name)
    return success(await prediction_out(call, prediction))


async def _find(call: Call) -> Prediction:
    name = call.request.path_params["id"]
    return await call.gateway.castmate.ledger.get(name, call.key.name)
