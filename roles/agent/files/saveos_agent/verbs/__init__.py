# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""A module for each verb: `add_options(parser)` and `run(settings, options)`, which gives an Answer."""
