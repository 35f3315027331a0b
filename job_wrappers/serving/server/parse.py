"""From the bodies of /v1/completions and /v1/chat/completions to requests for the engine.

Everything raises RequestRefused kinds.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from job_wrappers.serving.engine.views import ServedModel
from job_wrappers.serving.errors import BadRequest, UnknownModel
from job_wrappers.serving.requests.params import SamplingParams
from job_wrappers.serving.requests.request import Priority, Request
from job_wrappers.serving.server.fields import Fields, is_whole

if TYPE_CHECKING:
    from job_wrappers.serving.text.tokenizer import ModelText

_MOST_PROMPTS = 64
_MOST_NAME = 200
"""Characters of a caller's name or a cache's salt."""

_DEFAULT_TOKENS = 16
"""Of a completion, as OpenAI's; a chat goes on to the end of its text or the model's length."""

_NOT_SERVED: dict[str, object] = {
    "echo": False, "best_of": 1, "suffix": "", "logit_bias": None, "prompt_logprobs": None, "min_tokens": 0,
    "bad_words": None, "allowed_token_ids": None, "truncate_prompt_tokens": None, "use_beam_search": False,
    "skip_special_tokens": True, "tools": None, "tool_choice": "none", "functions": None, "function_call": "none",
    "modalities": ["text"], "response_format": {"type": "text"}, "structured_outputs": None, "guided_json": None,
    "guided_regex": None, "guided_choice": None, "guided_grammar": None, "chat_template": None,
    "chat_template_kwargs": None, "add_generation_prompt": True, "continue_final_message": False,
}  # fmt: skip
"""What a client of OpenAI's or vLLM's may ask for and is not done here: refused unless it holds this, or nothing. To
leave it aside in silence would be to answer another question."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    requests: tuple[Request, ...]
    """One for each prompt of the body."""

    chat: bool
    stream: bool
    stream_usage: bool
    n: int


def parse(body: object, *, chat: bool, model: ServedModel, arrived_at_s: float, caller: str) -> Parsed:
    """`caller`: who asks, unless the body says it."""
    fields = Fields(body)
    asked = fields.text("model", model.public_name)
    if asked not in model.names:
        known = ", ".join(sorted(model.names))
        raise UnknownModel(f"the model {asked[:_MOST_NAME]!r} is not served here: {known}", parameter="model")
    for name, allowed in _NOT_SERVED.items():
        if fields.get(name) not in (None, allowed, [], {}):
            raise BadRequest(f"{name} is not supported", parameter=name)
    params = _params(fields, chat=chat, default_tokens=model.max_model_len if chat else _DEFAULT_TOKENS)
    stream, stream_usage = fields.flag("stream"), fields.inner("stream_options").flag("include_usage")
    if stream_usage and not stream:
        raise BadRequest("stream_options: only with stream = true", parameter="stream_options")
    common: dict[str, Any] = {
        "model": model.name,
        "params": params,
        "priority": _priority(fields),
        "caller": fields.text("user", caller)[:_MOST_NAME],
        "arrived_at_s": arrived_at_s,
        "deadline_s": _deadline_s(fields, arrived_at_s),
        "cache_salt": fields.text("cache_salt", "")[:_MOST_NAME],
    }
    prompts = [_chat_prompt(fields, model)] if chat else _prompts(fields, model)
    requests = tuple(Request(request_id=secrets.token_hex(12), prompt_token_ids=p, **common) for p in prompts)
    return Parsed(requests=requests, chat=chat, stream=stream, stream_usage=stream_usage, n=params.n)


def _params(fields: Fields, *, chat: bool, default_tokens: int) -> SamplingParams:
    max_tokens = fields.whole_or("max_tokens", default_tokens)
    return SamplingParams(
        max_tokens=fields.whole_or("max_completion_tokens", max_tokens) if chat else max_tokens,
        temperature=fields.number("temperature", 1.0),
        top_k=0 if (top_k := fields.whole_or("top_k", 0)) == -1 else top_k,
        top_p=fields.number("top_p", 1.0),
        min_p=fields.number("min_p", 0.0),
        repetition_penalty=fields.number("repetition_penalty", 1.0),
        presence_penalty=fields.number("presence_penalty", 0.0),
        frequency_penalty=fields.number("frequency_penalty", 0.0),
        seed=fields.whole("seed"),
        stop=fields.texts("stop"),
        include_stop=fields.flag("include_stop_str_in_output"),
        stop_token_ids=fields.tokens("stop_token_ids"),
        ignore_eos=fields.flag("ignore_eos"),
        logprobs=_logprobs(fields) if chat else fields.whole("logprobs"),
        n=fields.whole_or("n", 1),
    )


def _logprobs(fields: Fields) -> int | None:
    """A chat says whether, and in a second field how many."""
    wanted, top = fields.flag("logprobs"), fields.whole("top_logprobs")
    if top is not None and not wanted:
        raise BadRequest("top_logprobs: only with logprobs = true", parameter="top_logprobs")
    return (top or 0) if wanted else None


def _priority(fields: Fields) -> Priority:
    name = fields.text("priority", "interactive")
    if name.upper() not in Priority.__members__:
        raise BadRequest(f"priority = {name[:_MOST_NAME]}: must be interactive or batch", parameter="priority")
    return Priority[name.upper()]


def _deadline_s(fields: Fields, arrived_at_s: float) -> float | None:
    if fields.get("deadline_ms") is None:
        return None
    deadline_ms = fields.number("deadline_ms", 0.0)
    if deadline_ms <= 0.0:
        raise BadRequest(f"deadline_ms = {deadline_ms:g}: must be above 0", parameter="deadline_ms")
    return arrived_at_s + deadline_ms / 1000


def _prompts(fields: Fields, model: ServedModel) -> list[tuple[int, ...]]:
    """A text, several, a list of tokens, or several of those."""
    prompt = fields.get("prompt")
    many = prompt if isinstance(prompt, list) and prompt and not is_whole(prompt[0]) else [prompt]
    if len(many) > _MOST_PROMPTS:
        raise BadRequest(f"prompt: at most {_MOST_PROMPTS} in one request", parameter="prompt")
    return [_prompt(each, model) for each in many]


def _prompt(prompt: object, model: ServedModel) -> tuple[int, ...]:
    if isinstance(prompt, str):
        return _text_of(model).encode(prompt, most_tokens=model.max_model_len - 1)
    if not isinstance(prompt, list) or not prompt or not all(map(is_whole, prompt)):
        raise BadRequest("prompt: must be a text, a list of tokens, or a list of those", parameter="prompt")
    for token in (min(prompt), max(prompt)):
        if not 0 <= token < model.vocabulary:
            told = f"prompt: no token {token if abs(token) < 2**63 else '...'}, there are 0 to {model.vocabulary - 1}"
            raise BadRequest(told, parameter="prompt")
    return tuple(prompt)


def _chat_prompt(fields: Fields, model: ServedModel) -> tuple[int, ...]:
    messages = fields.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequest("messages: must be a list of messages", parameter="messages")
    return _text_of(model).chat([_message(each) for each in messages], most_tokens=model.max_model_len - 1)


def _message(message: object) -> dict[str, Any]:
    """Its other keys are left to the model's template. Content in parts is for the template's owner to join."""
    if not isinstance(message, dict):
        raise BadRequest("messages: each must be an object with role and content", parameter="messages")
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or not isinstance(content, (str, list)):
        raise BadRequest("messages: role must be a text, content a text or a list of parts", parameter="messages")
    return message


def _text_of(model: ServedModel) -> ModelText:
    if model.text is None:
        raise BadRequest("this model has no tokenizer: give the prompt as a list of tokens", parameter="prompt")
    return model.text
