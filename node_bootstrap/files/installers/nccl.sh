# Another NCCL than torch pins, after torch: pip would refuse the pair.
pip_install --no-deps "$REQUIREMENT"
