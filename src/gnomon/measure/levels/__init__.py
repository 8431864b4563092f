"""How deep a run looks: model, layer, operator, kernel. Each level has runs of its own (XSP, Li et al. 2020)."""
