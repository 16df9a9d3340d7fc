import BlockFormats
import CSIMD
import KVQuantization
import TestSupport
import Testing

/// Every level of the C kernels gives the bytes of the specification, and decodes to its values.
@Suite struct LevelTests {
  static let levels = [NB_LEVEL_PORTABLE, NB_LEVEL_AVX2, NB_LEVEL_AVX512].filter {
    $0.rawValue <= nb_level_supported().rawValue
  }

  @Test(arguments: KVRecipe.allCases)
  func encodersGiveTheSpecificationsBytes(recipe: KVRecipe) throws {
    var generator = SplitMix(seed: 7)
    let unit = recipe.blockSize ?? 2
    for kind in RowKind.allCases {
      for g: Float in recipe.usesDecodeScale ? [1, 0.02, 0x1p-126, 0x1p-60, 0x1p60, 0x1p116] : [1] {
        // Dimensions around the kernels' groups of 128 and vectors of 16 and 8.
        for dimension in [unit, 64, 96, 128, 160 + unit, 288] {
          let row = kind.row(dimension: dimension, decodeScale: g, using: &generator)
          let expected = try recipe.encodeBySpecification(row, decodeScale: g)
          let wanted = try recipe.decodeBySpecification(expected.row, dimension: dimension, decodeScale: g)
          #expect(!wanted.contains { !$0.isFinite }, "\(recipe.name) \(kind) g \(g) dimension \(dimension)")
          for level in Self.levels {
            let actual = try recipe.encode(row, decodeScale: g, level: level)
            let decoded = try recipe.decode(actual.row, dimension: dimension, decodeScale: g, level: level)
            let what = "\(recipe.name) \(level) \(kind) g \(g) dimension \(dimension)"
            #expect(actual.row == expected.row, "\(what) row \(row)")
            #expect(actual.statistics == expected.statistics, "\(what)")
            #expect(decoded.map(\.bitPattern) == wanted.map(\.bitPattern), "\(what)")
          }
        }
      }
    }
  }

  /// Every BF16 pattern, infinities and NaN among them, through the codecs that keep each value by itself.
  @Test(arguments: [KVRecipe.f32, .bf16, .fp8E4M3])
  func everyBFloat16IsStoredAsSpecified(recipe: KVRecipe) throws {
    let row = (UInt16.min...UInt16.max).map { BFloat16(bits: $0).value }
    let expected = try recipe.encodeBySpecification(row, decodeScale: 0.7)
    let wanted = try recipe.decodeBySpecification(expected.row, dimension: row.count, decodeScale: 0.7)
    #expect(expected.statistics.replacedNonfinite == 256)
    for level in Self.levels {
      let actual = try recipe.encode(row, decodeScale: 0.7, level: level)
      let decoded = try recipe.decode(actual.row, dimension: row.count, decodeScale: 0.7, level: level)
      #expect(actual.row == expected.row && actual.statistics == expected.statistics, "\(recipe.name) \(level)")
      #expect(decoded.map(\.bitPattern) == wanted.map(\.bitPattern), "\(recipe.name) \(level)")
    }
  }

  /// Any bytes can be decoded, also those that no encoder writes: NaN and negative scales, -0.
  @Test(arguments: KVRecipe.allCases, levels)
  func decodersGiveTheSpecificationsValuesForAnyBytes(recipe: KVRecipe, level: nb_level) throws {
    var generator = SplitMix(seed: 8)
    let dimension = 16 * 32
    for start in stride(from: 0, to: 256, by: 16) {
      let scales = (0..<recipe.scaleBytes(dimension: dimension)).map { UInt8((start + $0) % 256) }
      let codes = (0..<recipe.codeBytes(dimension: dimension)).map { _ in UInt8.random(in: 0...255, using: &generator) }
      let row = KVRecipe.EncodedRow(codes: codes, scales: scales)
      let decoded = try recipe.decode(row, dimension: dimension, decodeScale: 0.3, level: level)
      let wanted = try recipe.decodeBySpecification(row, dimension: dimension, decodeScale: 0.3)
      for (a, b) in zip(decoded, wanted) where !(a.isNaN && b.isNaN) {
        #expect(a.bitPattern == b.bitPattern, "\(recipe.name), scales from \(start)")
      }
    }
  }

  /// Kernels write their destination and nothing behind it, at any alignment.
  @Test(arguments: KVRecipe.allCases, levels)
  func kernelsStayInsideTheirBuffers(recipe: KVRecipe, level: nb_level) {
    let unit = recipe.blockSize ?? 2
    for dimension in [unit, 3 * unit, 128 + unit, 256] {
      let row = (0...dimension).map { Float($0) - 20 }
      let (codeBytes, scaleBytes) = (recipe.codeBytes(dimension: dimension), recipe.scaleBytes(dimension: dimension))
      var codes = [UInt8](repeating: 0xA5, count: codeBytes + 65)
      var scales = [UInt8](repeating: 0xA5, count: scaleBytes + 65)
      var decoded = [Float](repeating: 77, count: dimension + 33)
      var statistics = EncodeStatistics()
      row.withUnsafeBufferPointer { row in
        codes.withUnsafeMutableBufferPointer { codes in
          scales.withUnsafeMutableBufferPointer { scales in
            decoded.withUnsafeMutableBufferPointer { decoded in
              guard let row = row.baseAddress, let codes = codes.baseAddress, let scales = scales.baseAddress,
                let decoded = decoded.baseAddress
              else { return }
              recipe.encode(
                row + 1, dimension: dimension, codes: codes + 1, scales: scales + 1, statistics: &statistics,
                level: level)
              recipe.decode(codes: codes + 1, scales: scales + 1, dimension: dimension, into: decoded + 1, level: level)
            }
          }
        }
      }
      #expect(codes[0] == 0xA5 && codes[(codeBytes + 1)...].allSatisfy { $0 == 0xA5 })
      #expect(scales[0] == 0xA5 && scales[(scaleBytes + 1)...].allSatisfy { $0 == 0xA5 })
      #expect(decoded[0] == 77 && decoded[(dimension + 1)...].allSatisfy { $0 == 77 })
      #expect(statistics.values == UInt64(dimension))
    }
  }

  /// What the encoders report, on a row where every count is known.
  @Test(arguments: levels)
  func statistics(level: nb_level) throws {
    var row = [Float](repeating: 1, count: 64)
    for i in 16..<32 { row[i] = 0.01 }  // 0.01 / 6 is a subnormal E4M3
    for i in 32..<48 { row[i] = 0.0001 }  // below half the least E4M3: a lost block
    for i in 48..<64 { row[i] = 0 }  // zero, and rightly so
    row[50] = .nan
    row[3] = -.infinity
    let (_, found) = try KVRecipe.nvfp4.encode(row, level: level)
    #expect(found.values == 64)
    #expect(found.replacedNonfinite == 2)
    #expect(found.blocks == 4)
    #expect(found.subnormalScales == 1)
    #expect(found.zeroScales == 1)
    #expect(found.subnormalScaleShare == 0.5)
    var sum = found
    sum += found
    #expect(sum.values == 128 && sum.zeroScales == 2)
  }

  @Test func wrongArgumentsAreErrors() throws {
    #expect(throws: KVQuantizationError.dimensionNotDivisible(dimension: 48, recipe: .mxfp4, unit: 32)) {
      _ = try KVRecipe.mxfp4.encode([Float](repeating: 0, count: 48))
    }
    for g: Float in [0, -1, .infinity, .leastNonzeroMagnitude, 0x1p117] {
      #expect(throws: KVQuantizationError.invalidDecodeScale(g)) {
        _ = try KVRecipe.nvfp4.encode([Float](repeating: 0, count: 16), decodeScale: g)
      }
      #expect(throws: KVQuantizationError.self) { try DecodeScales(key: 1, value: g).validate() }
    }
    #expect(throws: KVQuantizationError.self) { try DecodeScales(key: .nan, value: 1).validate() }
    #expect(throws: KVQuantizationError.rowSizeMismatch(recipe: .nvfp4, dimension: 16, codeBytes: 8, scaleBytes: 2)) {
      _ = try KVRecipe.nvfp4.decode(.init(codes: [UInt8](repeating: 0, count: 8), scales: [0, 0]), dimension: 16)
    }
  }
}
