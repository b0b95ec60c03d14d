"""Reading and analysing what a moevar run leaves; the schema is results/README.md."""
