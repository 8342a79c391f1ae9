"""What pidscale is measured by, and the Markdown pages that show it.

    studies/   train by the launch scripts, then measure: demo, methods, heads, grids, tasks, zoo, ablate
    speed/     time, bytes and memory of one part at a time: loader, rollout, space, ring_attention, memory, gpu
    proofs/    what is known exactly: residuals, manufactured, closed_form, fuzz, fingerprints, head;
               what is survived: faults, shrunk, soak
    pages/     the pages, from results/: `python -m benchmarks.pages [NAME ...] [--check]`
    results/   the figures that README and docs quote

Each benchmark named above runs alone, from the root of a checkout: `python -m benchmarks.DRAWER.NAME --json FILE` writes
`rows` and `meta` to FILE (benchmarks/results/NAME.json by default). Other modules are helpers of their drawer; `report` and
`ranks` are helpers of all. Benchmarks import nothing from tests/, and tests run them as commands.
"""
