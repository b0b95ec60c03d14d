"""Claims of papers beside runs of jobs/studies/papers: analysis/papers.py."""
