"""The public pages of providers and libraries that document their requests and responses."""

from __future__ import annotations

OPENAI = "https://platform.openai.com/docs/api-reference"
ANTHROPIC = "https://docs.claude.com/en/api/messages"
GEMINI = "https://ai.google.dev/api/generate-content"
VERTEX = (
    "https://cloud.google.com/vertex-ai/generative-ai/docs/reference/rest/v1/"
    "GenerateContentResponse"
)
CONVERSE = "https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_TokenUsage.html"
INVOKE = "https://docs.aws.amazon.com/bedrock/latest/userguide"
MISTRAL = "https://docs.mistral.ai/api"
COHERE = "https://docs.cohere.com/v2/reference/chat"
DEEPSEEK = "https://api-docs.deepseek.com/api/create-chat-completion"
XAI = "https://docs.x.ai/docs/api-reference"
OPENROUTER = "https://openrouter.ai/docs/use-cases/usage-accounting"
PERPLEXITY = "https://docs.perplexity.ai/api-reference/chat-completions-post"
OLLAMA = "https://github.com/ollama/ollama/blob/main/docs/api.md"
LITELLM = "https://docs.litellm.ai/docs/completion/usage"
AI_SDK = "https://ai-sdk.dev/docs/reference/ai-sdk-core/generate-text"
LANGCHAIN = (
    "https://reference.langchain.com/python/langchain_core/messages/"
    "#langchain_core.messages.ai.UsageMetadata"
)
GATEWAY = "https://ai.pydantic.dev/gateway"
