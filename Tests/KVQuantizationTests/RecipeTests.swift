import KVQuantization
import TestSupport
import Testing

@Suite struct RecipeTests {
  /// Relative L2 error of one round trip on N(0,1) rows, and with four channels times 20, with a calibrated factor: the figures
  /// of the format definition, within 2%.
  @Test(
    arguments: [
      (.nvfp4, 0.0953, 0.0893), (.nvfp4FourOverSix, 0.0871, 0.0886), (.fp4MXBlock16, 0.1127, 0.1481),
      (.mxfp4, 0.1148, 0.1787), (.fp8E4M3, 0.0267, 0.0268),
    ] as [(KVRecipe, Double, Double)])
  func roundTripErrorIsTheFormats(recipe: KVRecipe, plain: Double, withOutliers: Double) throws {
    let found = try recipe.roundTripError(Self.rows).error.relativeL2
    #expect(abs(found / plain - 1) < 0.02, "\(recipe.name): \(found), expected \(plain)")
    let outliers = try recipe.roundTripError(Self.rowsWithOutliers).error.relativeL2
    #expect(abs(outliers / withOutliers - 1) < 0.02, "\(recipe.name): \(outliers), expected \(withOutliers)")
  }

  /// Without a calibrated factor small inputs drown in subnormal block scales; with one they don't.
  @Test(arguments: [(0.01, 0.125), (0.003, 0.58), (0.001, 1.0)] as [(Float, Double)])
  func smallInputsNeedACalibratedFactor(sigma: Float, expected: Double) throws {
    let small = Self.rows.map { $0.map { $0 * sigma } }
    let (error, statistics) = try KVRecipe.nvfp4.roundTripError(small)
    #expect(abs(error.relativeL2 / expected - 1) < 0.02, "\(error.relativeL2)")
    #expect(statistics.subnormalScaleShare > 0.99)
    let maximum = error.maximumMagnitude
    let calibrated = try KVRecipe.nvfp4.roundTripError(small, decodeScale: maximum / 2688)
    #expect(abs(calibrated.error.relativeL2 / 0.0953 - 1) < 0.02, "\(calibrated.error.relativeL2)")
    #expect(calibrated.statistics.subnormalScaleShare == 0)
  }

  @Test func namesAndAliasesAreFound() throws {
    for recipe in KVRecipe.allCases {
      for name in [recipe.name] + recipe.aliases { #expect(try KVRecipe.named(name) == recipe) }
      #expect(KVRecipe(rawValue: recipe.rawValue) == recipe)
      #expect(recipe.kernelRecipe.rawValue == UInt32(recipe.rawValue))
    }
    let names = KVRecipe.allCases.flatMap { [$0.name] + $0.aliases }
    #expect(Set(names).count == names.count)
    #expect(throws: KVQuantizationError.unknownRecipe("q4_0")) { try KVRecipe.named("q4_0") }
  }

  @Test func sizesAreTheFormats() {
    let expected: [KVRecipe: (bits: Double, bytes: Int)] = [
      .f32: (32, 512), .bf16: (16, 256), .fp8E4M3: (8, 128), .nvfp4: (4.5, 72), .nvfp4FourOverSix: (4.5, 72),
      .fp4MXBlock16: (4.5, 72), .mxfp4: (4.25, 68),
    ]
    for recipe in KVRecipe.allCases {
      #expect(recipe.bitsPerValue == expected[recipe]?.bits)
      #expect(recipe.rowBytes(dimension: 128) == expected[recipe]?.bytes)
    }
  }

  @Test func tableNamesEveryRecipe() {
    for markdown in [false, true] {
      let lines = KVRecipe.table(markdown: markdown).split(separator: "\n")
      #expect(lines.count == KVRecipe.allCases.count + (markdown ? 2 : 1))
      for recipe in KVRecipe.allCases {
        let line = lines.first { $0.contains(markdown ? "| `\(recipe.name)` |" : "\(recipe.name) ") }
        #expect(line?.contains("\(recipe.rowBytes(dimension: 128))") == true)
      }
    }
    #expect(
      KVRecipe.table(markdown: true).contains("| `mxfp4` | - | 32 | power of two (E8M0) | - | to even | 4.25 | 68 |"))
  }

  /// 400 rows of 128 from N(0, 1), and the same with four channels times 20.
  static let rows = makeRows(outliers: [])
  static let rowsWithOutliers = makeRows(outliers: [9, 40, 71, 102])

  private static func makeRows(outliers: Set<Int>) -> [[Float]] {
    var generator = SplitMix(seed: 42)
    return (0..<400).map { _ in (0..<128).map { generator.normal() * (outliers.contains($0) ? 20 : 1) } }
  }
}
