"""What pip cannot read from pyproject.toml: the version, which stands in package.xml alone."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from setuptools import setup

package_xml = Path(__file__).parent / 'package.xml'
setup(version=ElementTree.parse(package_xml).getroot().findtext('version'))
