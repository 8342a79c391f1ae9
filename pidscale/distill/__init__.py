"""Distillation of a frozen teacher into one-step students."""
