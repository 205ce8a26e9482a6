"""ControlNets and adapters of pictures beside an engine: opened, and what they add to its U-Net in the loop."""
