"""Train by the launch scripts, then measure what came out: minutes to hours."""
