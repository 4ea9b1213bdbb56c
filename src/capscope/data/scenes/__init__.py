"""Scenes: a data set that capscope draws itself, with the true answer to "where is this word"."""

from capscope.data.scenes.recipe import Recipe, SceneObject
from capscope.data.scenes.render import render, visible_mask
from capscope.data.scenes.write import read_recipes, write_scenes

__all__ = ["Recipe", "SceneObject", "read_recipes", "render", "visible_mask", "write_scenes"]
