"""What is in memory when: the plan, and who carries it out."""
