import KVQuantization

/// `--recipes` of benchmarks: one recipe, or two with a slash between, whose meaning the command's help states.
struct RecipePair {
  let first: KVRecipe
  /// nil for one recipe.
  let second: KVRecipe?

  /// - Throws: `CommandFailure` for more than two, `KVQuantizationError.unknownRecipe`.
  init(_ text: String) throws {
    let parts = try text.split(separator: "/", omittingEmptySubsequences: false).map {
      try KVRecipe.named(String($0))
    }
    guard let first = parts.first, parts.count <= 2 else {
      throw CommandFailure(.usage, "expected a recipe, or two with a slash between, in --recipes, found '\(text)'")
    }
    self.first = first
    second = parts.count == 2 ? parts[1] : nil
  }
}
