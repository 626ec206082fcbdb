"""What the KLIP module does, apart from its panel: nothing here knows the application, the scene is an argument."""
