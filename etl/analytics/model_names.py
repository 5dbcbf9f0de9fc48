"""The search for the published entry of a model's name.

The rules are tried in this order. The first that applies decides, whether it finds an entry or not:

1. A Google path (`models/…`, `…/publishers/…/models/…`) or a Vertex AI name (`…@20250929`): an
   entry of Google.
2. A fine-tuned model (`ft:…`, `….ft-…`): only an entry for fine-tuned models, which cost more than
   their base model.
3. A Bedrock name (an ARN, `us.anthropic.…`, `amazon.…`): an entry of AWS. Prices differ by region.
4. A gateway before a slash (`azure/…`, `groq/…`, `openrouter/…`, as LiteLLM writes them): an entry
   of that provider.
5. The host of the API that is read, if its list has the exact name.
6. A maker before a slash, as LiteLLM writes it (`deepseek/…`), if the maker's list has the exact
   name after it. OpenRouter uses some of these names too, but reports the cost of each call itself.
7. The exact name in a list: the maker's, then OpenRouter's for `maker/model`, then the list of any
   provider that sells the model; none if several sell it at different prices. A name with the same
   upper and lower case wins over other spellings.
8. The maker's entry by the patterns of its list: for `maker/model`, and for names like those of
   its models. At the same price, the maker's entry wins over another provider's exact name, because
   the maker lists the prices of more kinds of usage.
9. The name without the date at its end, by rules 5 to 8.

Upper and lower case are the same, except in rule 7. A suffix after a colon (`:online`) is part of
the name.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from genai_prices.types import MatchLogic, ModelInfo, Provider

# The API that is read belongs to Arcee, so Arcee sells the models that its own list names exactly.
_HOST = "arcee"
OPENROUTER = "openrouter"
# Providers that sell other makers' models under the makers' names. Only a prefix identifies them.
_RESELLERS = re.compile(r"github-copilot|huggingface_.*|quicksilverpro|cursor")
# LiteLLM's prefixes that name the provider that is paid.
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
# Makers' names in LiteLLM and OpenRouter that differ from the package's ids.
_MAKERS = {
    "cohere_chat": "cohere",
    "mistralai": "mistral",
    "moonshot": "moonshotai",
    "text-completion-openai": "openai",
    "voyage": "voyageai",
    "xai": "x-ai",
    "z-ai": "zai",
}
# LiteLLM's prefixes that name makers; OpenRouter uses some of them too.
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
    r"(?:ai21|amazon|anthropic|cohere|deepseek|google|luma|meta|minimax|mistral|moonshot|moonshotai"
    r"|nvidia|openai|qwen|stability|twelvelabs|writer|zai)\.[a-z].*"
)
_DATE = re.compile(r"(?:[-@]20\d{6}|-20\d\d-\d\d-\d\d)$")
_VERSION = re.compile(r"-v?\d+(?::\d+)?")
# Models of others that are distilled from a maker's model. The maker's patterns would match them.
_DERIVED = "distill"
# Prefixes of provider-specific names that contain slashes but no maker.
_PATHS = ("@cf/", "accounts/fireworks/")
# OpenAI publishes the weights of these models, but sells no access to them.
_NOT_SOLD = ("openai", "gpt-oss")


class CatalogEntry(NamedTuple):
    """A published entry, and the provider that is paid."""

    provider: Provider
    model: ModelInfo

    @property
    def is_own(self) -> bool:
        """Whether the entry is in the provider's own list, not in that of a maker it resells."""
        return any(self.model is one for one in self.provider.models)


def find(model: str) -> CatalogEntry | None:
    """Return the entry that this name stands for; None if there is none, or it is ambiguous."""
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
        # Some providers' own names begin with the prefix, so try the whole name too.
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
    """Return the maker's own entry for `maker/model`, or for a name like those of its models."""
    prefix, _, rest = name.partition("/")
    if rest and not name.lower().startswith(_PATHS):
        maker = _maker(prefix)
    else:
        maker, rest = _maker_of(name), name
    if maker is None or ":" in rest or _DERIVED in rest.lower() or _is_not_sold(maker, rest):
        return None
    return _sold_by(maker.id, rest)


def _price(entry: CatalogEntry) -> tuple[object, object]:
    # The price on the last possible day, so that the choice does not depend on today's date.
    price = entry.model.get_prices(datetime(9999, 12, 31, 12, tzinfo=UTC))
    return tuple(getattr(one, "base", one) for one in (price.input_mtok, price.output_mtok))  # type: ignore[return-value]


def _exact(name: str) -> list[CatalogEntry]:
    """Return the entries with exactly this name; if some have the same spelling, only these."""
    found = [
        one
        for one in _index().get(name.lower(), [])
        if not _RESELLERS.fullmatch(one[0].provider.id)
    ]
    spelled = [entry for entry, spelling in found if spelling == name]
    chosen = spelled or [entry for entry, _ in found]
    return list({(one.provider.id, one.model.id): one for one in chosen}.values())


def _sold_by(provider_id: str, name: str) -> CatalogEntry | None:
    """Return this provider's entry for the name: by the exact name, then by its patterns."""
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
    """Return the maker whose model names have this form."""
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
    """Return the AWS entry for a Bedrock name.

    The name may begin with an ARN or with LiteLLM's region, and may lack the version at its end.
    """
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
    """Return the entries by their exact names in lower case, each with its spelling."""
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
    """Return the providers with published prices, and the models that they sell."""
    # The import takes 100 ms and 30 MB, and is needed only after a new model or rule appears.
    from genai_prices.data_snapshot import get_snapshot

    return get_snapshot().providers
