import runpy
from pathlib import Path

import tests.house


runpy.run_path(str(Path(tests.house.__path__[0]) / "doc_preludes" / "README.py"))
