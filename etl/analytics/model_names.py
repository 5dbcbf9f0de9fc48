"""Which entry of the published prices a model's name stands for.

The order of the search; the first that applies decides, whether it finds an entry or not:

1. A path of Google (`models/…`, `…/publishers/…/models/…`) or a name of Vertex AI (`…@20250929`): what Google sells.
2. A fine-tuned model (`ft:…`, `….ft-…`): only an entry for fine-tuned models, which cost more than their base.
3. A name of Bedrock (an ARN, `us.anthropic.…`, `amazon.…`): what AWS sells; regions differ in price.
4. A gateway before a slash (`azure/…`, `groq/…`, `openrouter/…`, as LiteLLM writes them): what that provider sells.
5. The host of the API that is read, where its list has the very name.
6. A maker before a slash, as LiteLLM writes it (`deepseek/…`), where the maker's list has the very name behind it. OpenRouter
   writes some of them so, too, but says itself what a call costs.
7. The very name in a list: its maker's, then OpenRouter's for `maker/model`, then that of whoever sells it; nobody's where
   several sell it at different prices. A name in its own spelling goes before one in another case.
8. What the maker sells by the patterns of its list: for `maker/model`, and for names like those of its models. This goes before
   another's very name where the price is the same, as the maker's list tells more.
9. The name without the date at its end, by 5 to 8.

Upper and lower case are the same, but for 7. A suffix after a colon (`:online`) is part of the
name.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from genai_prices.types import MatchLogic, ModelInfo, Provider

# The API that is read is Arcee's: what its own list names exactly is sold by it.
_HOST = "arcee"
OPENROUTER = "openrouter"
# They sell others' models under the others' names: only a prefix tells that it is them.
_RESELLERS = re.compile(r"github-copilot|huggingface_.*|quicksilverpro|cursor")
# Prefixes of LiteLLM that say who is paid.
_GATEWAYS = {
    "azure": "azure",
    "azure_ai": "azure",
    "azure_openai": "azure",
    "bedrock": "aws",
    "bedrock_converse": "aws",
    "cerebras": "cerebras",
    "databricks": "databricks",
    "fireworks_ai": "fireworks",
    "gemini": "google",
    "github_copilot": "github-copilot",
    "groq": "groq",
    "novita": "novita",
    "openrouter": OPENROUTER,
    "together_ai": "together",
    "vertex_ai": "google",
    "vertex_ai_beta": "google",
}
# What LiteLLM or OpenRouter writes before the maker's model where that is not the package's id of
# the maker.
_MAKERS = {
    "cohere_chat": "cohere",
    "mistralai": "mistral",
    "moonshot": "moonshotai",
    "text-completion-openai": "openai",
    "voyage": "voyageai",
    "xai": "x-ai",
    "z-ai": "zai",
}
# Those of LiteLLM that are makers, which OpenRouter names likewise.
_LITELLM = {
    *(
        "anthropic",
        "cohere",
        "cohere_chat",
        "deepseek",
        "minimax",
        "mistral",
        "moonshot",
        "openai",
        "perplexity",
    ),
    *("text-completion-openai", "voyage", "xai"),
}
_GOOGLE = re.compile(r"(?:.*/)?publishers/[^/]+/models/([^/]+)|models/([^/]+)|([^/@]+@[^/]+)")
_FINE_TUNED = re.compile(r"(?:^|/)ft:|[.:]ft-")
_BEDROCK = re.compile(
    r"(?:arn:aws[^/]*:bedrock:[^/]*/)?(?:(?:us|us-gov|eu|apac|ap|au|ca|in|jp|sa|global)\.)?"
    r"(?:ai21|amazon|anthropic|cohere|deepseek|google|luma|meta|minimax|mistral|moonshot|moonshotai|nvidia|openai|qwen|stability"
    r"|twelvelabs|writer|zai)\.[a-z].*"
)
_DATE = re.compile(r"(?:[-@]20\d{6}|-20\d\d-\d\d-\d\d)$")
_VERSION = re.compile(r"-v?\d+(?::\d+)?")
# The patterns of the makers take these for their own: other people's models, made from theirs.
_DERIVED = "distill"
# Names of providers' own that hold slashes.
_PATHS = ("@cf/", "accounts/fireworks/")
# OpenAI gives the weights away, and does not sell access.
_NOT_SOLD = ("openai", "gpt-oss")


class CatalogEntry(NamedTuple):
    """A published entry, and who is paid."""

    provider: Provider
    model: ModelInfo

    @property
    def is_own(self) -> bool:
        """Whether it is in the provider's own list, and not in that of the maker whose models it sells, too."""
        return any(self.model is one for one in self.provider.models)


def find(model: str) -> CatalogEntry | None:
    """The entry that this name stands for; None where there is none, or it cannot be told which."""
    name = model.strip()
    if google := _GOOGLE.fullmatch(name):
        return _sold_by("google", next(filter(None, google.groups())))
    lower = name.lower()
    if _FINE_TUNED.search(lower):
        entry = _sold_by("openai", lower.rpartition("/")[2])
        return entry if entry is not None and _names_fine_tuned(entry.model) else None
    if _BEDROCK.fullmatch(lower):
        return _on_bedrock(lower)
    prefix, _, rest = name.partition("/")
    if rest and (provider := _GATEWAYS.get(prefix.lower())):
        # Some providers' own names begin so, too.
        return (
            _on_bedrock(rest.lower())
            if provider == "aws"
            else _sold_by(provider, rest) or _sold_by(provider, name)
        )
    found = _by_name(name)
    if found is None and (date := _DATE.search(name)):
        found = _by_name(name[: date.start()])
    return None if found == "several" else found


def _by_name(name: str) -> CatalogEntry | Literal["several"] | None:
    if host := _sold_by(_HOST, name):
        return host
    prefix, _, rest = name.partition("/")
    if (
        prefix.lower() in _LITELLM
        and (maker := _maker(prefix))
        and (entry := _exactly_by(maker, rest))
    ):
        return entry
    made = _made(name)
    exact = _exact(name)
    if not exact:
        return made
    by_provider = {one.provider.id: one for one in reversed(exact)}
    if made is not None and made.provider.id in by_provider:
        return by_provider[made.provider.id]
    if "/" in name and (listed := by_provider.get(OPENROUTER)):
        exact = [listed]
    exact = [one for one in exact if one.provider.model_match is not None] or exact
    if any(_price(one) != _price(exact[0]) for one in exact):
        return "several"
    return made if made is not None and _price(made) == _price(exact[0]) else exact[0]


def _made(name: str) -> CatalogEntry | None:
    """What the maker itself sells: of `maker/model`, or of a name like those of its models."""
    prefix, _, rest = name.partition("/")
    if rest and not name.lower().startswith(_PATHS):
        maker = _maker(prefix)
    else:
        maker, rest = _maker_of(name), name
    if maker is None or ":" in rest or _DERIVED in rest.lower() or _is_not_sold(maker, rest):
        return None
    return _sold_by(maker.id, rest)


def _price(entry: CatalogEntry) -> tuple[object, object]:
    # Of the last day of all, so that the choice does not depend on the day on which it is made.
    price = entry.model.get_prices(datetime(9999, 12, 31, 12, tzinfo=UTC))
    return tuple(getattr(one, "base", one) for one in (price.input_mtok, price.output_mtok))  # type: ignore[return-value]


def _exact(name: str) -> list[CatalogEntry]:
    """The entries of this very name, in this spelling where there are such."""
    found = [
        one
        for one in _index().get(name.lower(), [])
        if not _RESELLERS.fullmatch(one[0].provider.id)
    ]
    spelled = [entry for entry, spelling in found if spelling == name]
    chosen = spelled or [entry for entry, _ in found]
    return list({(one.provider.id, one.model.id): one for one in chosen}.values())


def _sold_by(provider_id: str, name: str) -> CatalogEntry | None:
    """What this provider sells under this name: the very name first, then by its patterns."""
    provider = next((one for one in providers() if one.id == provider_id), None)
    if provider is None:
        return None
    if (exact := _exactly_by(provider, name)) or provider_id == _HOST:
        return exact
    model = provider.find_model(name, all_providers=providers())
    return None if model is None else CatalogEntry(provider, model)


def _exactly_by(provider: Provider, name: str) -> CatalogEntry | None:
    return next(
        (one for one, _ in _index().get(name.lower(), []) if one.provider is provider), None
    )


def _maker(prefix: str) -> Provider | None:
    wanted = _MAKERS.get(prefix.lower(), prefix.lower())
    return next((one for one in providers() if one.id == wanted), None)


def _maker_of(name: str) -> Provider | None:
    """Whose models are named so."""
    lower = name.lower()
    found = next(
        (
            one
            for one in providers()
            if one.model_match is not None and one.model_match.is_match(lower)
        ),
        None,
    )
    return None if found is None or _is_not_sold(found, name) else found


def _is_not_sold(provider: Provider, name: str) -> bool:
    return provider.id == _NOT_SOLD[0] and name.lower().startswith(_NOT_SOLD[1])


def _on_bedrock(name: str) -> CatalogEntry | None:
    """Without the ARN, or the region that LiteLLM puts before it; the version at the end may be left out."""
    name = name.rpartition("/")[2]
    versions = (
        one for one in _index() if one.startswith(name) and _VERSION.fullmatch(one, len(name))
    )
    return _sold_by("aws", name) or next(
        filter(None, (_sold_by("aws", one) for one in versions)), None
    )


def _names_fine_tuned(model: ModelInfo) -> bool:
    return (
        "ft:" in model.id
        or "ft-" in model.id
        or any(one.startswith("ft:") for one in _starts(model.match))
    )


@cache
def _index() -> dict[str, list[tuple[CatalogEntry, str]]]:
    """By the name in lower case, the entries of that very name, each with its spelling."""
    found: dict[str, list[tuple[CatalogEntry, str]]] = {}
    for provider in providers():
        for model in provider.models:
            for name in dict.fromkeys((model.id, *_equal(model.match))):
                if not _is_not_sold(provider, name):
                    found.setdefault(name.lower(), []).append((CatalogEntry(provider, model), name))
    return found


def _equal(match: MatchLogic) -> Iterator[str]:
    from genai_prices.types import ClauseEquals, ClauseOr

    if isinstance(match, ClauseEquals):
        yield match.equals
    elif isinstance(match, ClauseOr):
        for one in match.or_:
            yield from _equal(one)


def _starts(match: MatchLogic) -> Iterator[str]:
    from genai_prices.types import ClauseOr, ClauseStartsWith

    if isinstance(match, ClauseStartsWith):
        yield match.starts_with
    elif isinstance(match, ClauseOr):
        for one in match.or_:
            yield from _starts(one)


def providers() -> list[Provider]:
    """Who publishes prices, with what they sell."""
    # 100 ms and 30 MB, needed only when a new model or rule is seen.
    from genai_prices.data_snapshot import get_snapshot

    return get_snapshot().providers
