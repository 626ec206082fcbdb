"""`python -m klip_engine` is `klip-engine`."""

from klip_engine.cli import main

if __name__ == "__main__":
    main()
