"""Write a report in one format each: terminal, Markdown, CSV, JSON, HTML, and those of CI."""
