"""``search_knowledge``: full-text search over the department's own documents."""

from __future__ import annotations

from pydantic import Field

from agents.knowledge import MAX_HITS, Hit, has_documents, search_documents
from agents.tools.base import Args, DatabaseTool, ToolArgs, ToolContext, ToolResult


class SearchArgs(ToolArgs):
    query: str = Field(min_length=1, max_length=300, description="A few telling words, no operators.")
    limit: int = Field(3, description=f"Passages to return, 1 to {MAX_HITS}.")


def search(ctx: ToolContext, args: Args) -> ToolResult:
    """The passages found, each under the reference to cite; no hit is an answer too, not an error."""
    hits = search_documents(department_id=ctx.department_id, query=args["query"], limit=args["limit"])
    detail = {
        "query": args["query"],
        "hits": [{"reference": hit.reference, "document": hit.document_id} for hit in hits],
    }
    if hits:
        return ToolResult("\n\n".join(_written(hit) for hit in hits), detail=detail)
    if has_documents(ctx.department_id):
        return ToolResult("No passage of the department's documents fits this query.", detail=detail)
    return ToolResult("The department has not uploaded any documents to search.", detail=detail)


def _written(hit: Hit) -> str:
    head = " · ".join(part for part in (f"[{hit.reference}]", hit.heading, hit.source) if part)
    return f"{head}\n{hit.text}"


SEARCH_KNOWLEDGE = DatabaseTool(
    name="search_knowledge",
    description=(
        "Searches our company's documents (products, prices, references, policies). Each passage comes under a "
        "reference such as [Price list#3]: cite it as the source."
    ),
    args=SearchArgs,
    timeout_seconds=5,
    max_chars=2_400,
    run=search,
)
