"""Rows to a table."""
def table(rows, form):
    return "\n".join(f"{r.experiment} {r.seed} {r.mean} {r.ci95}" for r in rows)
