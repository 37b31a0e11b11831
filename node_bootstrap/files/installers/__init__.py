"""Scripts that install what a GPU node needs; `node_bootstrap.steps.installer` renders them."""
