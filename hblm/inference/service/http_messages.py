"""Bodies of the service's requests and answers, their limits, and messages for those that are refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import orjson
from fastapi import Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from hblm.errors import nearest

_SHOWN = 5  # faults of a body


class RefusedError(Exception):
    """A request that gets an error: the code, the message, and headers."""

    def __init__(self, code: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.code, self.headers = code, headers


def json_response(content: Any, code: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a response of JSON; float32 numbers get their shortest decimals."""
    body = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, code, headers, media_type="application/json")


def error_response(error: RefusedError) -> Response:
    """Return the response to a request that is refused."""
    return json_response({"error": str(error)}, error.code, error.headers)


def _encodable(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"has a lone surrogate, at character {error.start + 1}") from None
    return text


Text = Annotated[str, AfterValidator(_encodable)]


class PredictRequest(BaseModel):
    """One text or several, and what is predicted; a field that is left out is as the service was started."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [{"texts": ["a text", "another text"], "top_k": 3}]},
    )

    text: Text | None = Field(None, description="one text")
    texts: list[Text] | None = Field(None, description="several texts, in place of `text`")
    top_k: int | None = Field(
        None,
        ge=1,
        description="the most paths a text; without `threshold` they may end at any leaf of the tree",
    )
    threshold: float | None = Field(
        None, ge=0, le=1, allow_inf_nan=False, description="the score from which on a node is predicted"
    )
    consistency: Literal["raise", "cap", "none"] | None = Field(
        None,
        description="raise: a predicted node brings its ancestors; cap: it needs them; none: each by itself",
    )
    all_scores: bool = Field(False, description="also the score of every node")
    confidence: float | None = Field(
        None,
        ge=0.01,
        le=0.999,
        allow_inf_nan=False,
        description="paths are cut back so that this share of texts has no wrong node; `threshold` and "
        "`consistency` are those of the service then",
    )

    @model_validator(mode="after")
    def _one_form(self) -> PredictRequest:
        if (self.text is None) == (self.texts is None):
            raise ValueError("give either text or texts")
        return self

    def within(self, *, most_texts: int, most_characters: int) -> list[str]:
        """Return the texts.

        Raises:
            RefusedError: there are too many, or one is too long.
        """
        texts = [self.text] if self.text is not None else self.texts or []
        if len(texts) > most_texts:
            raise RefusedError(413, f"texts: {len(texts):,} texts; at most {most_texts:,} in one request")
        for number, text in enumerate(texts):
            if len(text) > most_characters:
                name = "text" if self.texts is None else f"texts[{number}]"
                raise RefusedError(413, f"{name}: {len(text):,} characters; at most {most_characters:,}")
        return texts


class Path(BaseModel):
    """Predicted nodes, each the child of the one before."""

    nodes: list[str] = Field(description="ids, see /taxonomy")
    names: list[str]
    scores: list[float]


class Document(BaseModel):
    """What is predicted for one text."""

    paths: list[Path] = Field(description="by falling score of the last node")
    scores: dict[str, float] | None = Field(None, description="by node id; with all_scores alone")


class PredictResponse(BaseModel):
    """The predictions, in the order of the texts."""

    documents: list[Document]


class ErrorResponse(BaseModel):
    """Why there is no answer."""

    error: str


def refusal_of(faults: Sequence[Mapping[str, Any]]) -> RefusedError:
    """Return the error for a body that is not JSON, or whose fields are wrong."""
    if faults[0]["type"] == "json_invalid":
        place = f" (character {faults[0]['loc'][-1] + 1})" if isinstance(faults[0]["loc"][-1], int) else ""
        return RefusedError(400, f"the body is not JSON: {faults[0]['ctx']['error']}{place}")
    if faults[0]["loc"] == ("body",) and faults[0]["type"] in ("missing", "model_attributes_type"):
        return RefusedError(422, 'the body is not an object; send {"text": "..."} or {"texts": [...]}')
    lines = [_line(fault) for fault in faults[:_SHOWN]]
    more = [f"and {len(faults) - _SHOWN:,} more faults"] if len(faults) > _SHOWN else []
    return RefusedError(422, "; ".join([*lines, *more]))


def _line(fault: Mapping[str, Any]) -> str:
    """Return one line for a fault: the field, and what is wrong."""
    places = fault["loc"][1:]  # without "body"
    field = "".join(f"[{place}]" if isinstance(place, int) else f".{place:.100}" for place in places)[1:]
    message = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        message = f"is not a field{nearest(str(places[-1]), PredictRequest.model_fields)}"
    return f"{field}: {message}" if field else message
