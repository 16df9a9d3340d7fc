import CSIMD
import KVQuantization
import PagedCache
import Testing

/// Where a record's bytes lie, found out from the layouts and the kernels.
enum RecordPicture {
  /// The regions of two records.
  static func offsets() throws -> String {
    let mha = CacheLayout.mha(
      try MHALayout(kvHeadCount: 4, headDimension: 128, pageSize: 64, recipeK: .nvfp4, recipeV: .nvfp4))
    let mla = CacheLayout.mla(
      try MLALayout(latentDimension: 512, ropeDimension: 64, pageSize: 64, recipeLatent: .nvfp4, recipeRope: .bf16))
    var text = "| record | region | recipe | codes at | scales at | ends at |\n|---|---|---|---|---|---|\n"
    for (name, layout) in [("GQA", mha), ("MLA", mla)] {
      for region in layout.regions where region.head < 2 {
        let place =
          region.kind == .key || region.kind == .value ? "head \(region.head) \(region.kind)" : "\(region.kind)"
        let scaleBytes = region.recipe.scaleBytes(dimension: region.dimension) * layout.pageSize
        let scales = scaleBytes == 0 ? "-" : "\(region.scaleOffset)"
        text += "| \(name) | \(place) | \(region.recipe.name) | \(region.codeOffset) | \(scales) | "
        text += "\(region.scaleOffset + scaleBytes) |\n"
      }
      text += "| \(name) | whole record | | | | \(layout.recordBytes) |\n"
    }
    return text
  }

  /// Which token's dimensions the first bytes of a group hold.
  static func interleaving() throws -> String {
    let bytes = Array(0..<8) + Array(64..<68)
    let keys = owners(kind: .key)
    let values = owners(kind: .value)
    try #require(keys == values && keys.allSatisfy { $0.count == 2 })
    var text = "| byte of the codes | low nibble | high nibble |\n|---|---|---|\n"
    for byte in bytes { text += "| \(byte) | \(keys[byte].joined(separator: " | ")) |\n" }
    return text
  }

  /// For each byte of a region of 16 tokens of 128 four-bit values, what its low and high nibble hold: stores one marked code at
  /// a time and looks where it went.
  private static func owners(kind: CacheRegionKind) -> [[String]] {
    let (tokens, dimension, rowBytes) = (16, 128, 64)
    var owners = [[String]](repeating: ["", ""], count: tokens * rowBytes)
    let codes = UnsafeMutableBufferPointer<UInt8>.allocate(capacity: tokens * rowBytes)
    let scales = UnsafeMutableBufferPointer<UInt8>.allocate(capacity: tokens * dimension / 16)
    defer {
      codes.deallocate()
      scales.deallocate()
    }
    var region = nb_region(
      recipe: NB_NVFP4, kind: kind.rawValue, dimension: Int32(dimension), codes: codes.baseAddress,
      scales: scales.baseAddress)
    for token in 0..<tokens {
      for element in 0..<dimension {
        codes.initialize(repeating: 0)
        scales.initialize(repeating: 0)
        var row = [UInt8](repeating: 0, count: rowBytes)
        row[element / 2] = element.isMultiple(of: 2) ? 0x0F : 0xF0
        nb_region_scatter_row(&region, Int32(token), row, [UInt8](repeating: 0, count: dimension / 16))
        for (byte, value) in codes.enumerated() where value != 0 {
          owners[byte][value == 0x0F ? 0 : 1] = "t\(token) d\(element)"
        }
      }
    }
    return owners
  }
}

/// Bytes per token of well-known models.
enum ModelSizes {
  struct Model {
    let name: String
    let words: String
    let layers: Int
    let geometry: Geometry

    enum Geometry {
      case mha(heads: Int, dimension: Int)
      case mla(latent: Int, rope: Int)
    }

    /// Over all layers, by the cache's own layout.
    func bytesPerToken(_ recipe: KVRecipe, rope: KVRecipe) throws -> Int {
      switch geometry {
      case .mha(let heads, let dimension):
        let layout = try MHALayout(
          kvHeadCount: heads, headDimension: dimension, pageSize: 16, recipeK: recipe, recipeV: recipe)
        return layers * layout.bytesPerToken
      case .mla(let latent, let ropeDimension):
        let layout = try MLALayout(
          latentDimension: latent, ropeDimension: ropeDimension, pageSize: 16, recipeLatent: recipe, recipeRope: rope)
        return layers * layout.bytesPerToken
      }
    }
  }

  static let models = [
    Model(
      name: "Llama-3.1-8B", words: "32 layers, 8 KV heads, 128", layers: 32, geometry: .mha(heads: 8, dimension: 128)),
    Model(name: "Llama-3.1-70B", words: "80, 8, 128", layers: 80, geometry: .mha(heads: 8, dimension: 128)),
    Model(name: "Qwen3-8B", words: "36, 8, 128", layers: 36, geometry: .mha(heads: 8, dimension: 128)),
    Model(name: "Qwen3-32B", words: "64, 8, 128", layers: 64, geometry: .mha(heads: 8, dimension: 128)),
    Model(name: "Qwen3-235B-A22B", words: "94, 4, 128", layers: 94, geometry: .mha(heads: 4, dimension: 128)),
    Model(
      name: "Qwen3.5-class hybrid", words: "16 attention layers of 64, 4, 256", layers: 16,
      geometry: .mha(heads: 4, dimension: 256)),
    Model(
      name: "DeepSeek-R1", words: "61, MLA: latent 512, rotary key 64", layers: 61,
      geometry: .mla(latent: 512, rope: 64)),
  ]

  static func table() throws -> String {
    var text =
      "| model: layers, KV heads, head_dim | bf16 | fp8_e4m3 | nvfp4, fp4_mx_block16 | mxfp4 | 131,072 tokens: bf16, nvfp4 |\n"
    text += "|---|---|---|---|---|---|\n"
    for model in models {
      func row(_ label: String, rope: KVRecipe?) throws -> String {
        let sizes = try [KVRecipe.bf16, .fp8E4M3, .nvfp4, .mxfp4].map { try model.bytesPerToken($0, rope: rope ?? $0) }
        try #require(try model.bytesPerToken(.fp4MXBlock16, rope: rope ?? .fp4MXBlock16) == sizes[2])
        let context = "\(gigabytes(sizes[0])), \(gigabytes(sizes[2]))"
        return "| \(label) | \(sizes.map(grouped).joined(separator: " | ")) | \(context) |\n"
      }
      text += try row("\(model.name): \(model.words)", rope: nil)
      if case .mla = model.geometry { text += try row("\(model.name), rotary key in bf16 (the default)", rope: .bf16) }
    }
    return text
  }

  private static func gigabytes(_ bytesPerToken: Int) -> String {
    let tenths = (bytesPerToken * 131_072 + 50_000_000) / 100_000_000
    return "\(tenths / 10).\(tenths % 10) GB"
  }

  /// 1234567 as 1,234,567.
  private static func grouped(_ number: Int) -> String {
    let digits = Array(String(number))
    return digits.enumerated().map { index, digit in
      let left = digits.count - index
      return index > 0 && left.isMultiple(of: 3) ? ",\(digit)" : "\(digit)"
    }.joined()
  }
}

/// Errors of one round trip.
enum ErrorFigures {
  static func tables() throws -> String {
    var text = "| recipe | N(0, 1) | four channels times 20 |\n|---|---|---|\n"
    for recipe in KVRecipe.allCases where recipe.codeBits <= 16 {
      let plain = try recipe.roundTripError(RecipeTests.rows).error.relativeL2
      let withOutliers = try recipe.roundTripError(RecipeTests.rowsWithOutliers).error.relativeL2
      text += "| \(recipe.name) | \(decimal(plain)) | \(decimal(withOutliers)) |\n"
    }
    text +=
      "\n| standard deviation | nvfp4, g = 1 | subnormal or zero block scales | nvfp4, g = amax / 2688 |\n|---|---|---|---|\n"
    for sigma: Float in [1, 0.03, 0.01, 0.003, 0.001] {
      let small = RecipeTests.rows.map { $0.map { $0 * sigma } }
      let uncalibrated = try KVRecipe.nvfp4.roundTripError(small)
      let g = uncalibrated.error.maximumMagnitude / 2688
      let calibrated = try KVRecipe.nvfp4.roundTripError(small, decodeScale: g)
      let share = (uncalibrated.statistics.subnormalScaleShare * 1000).rounded() / 10
      text += "| \(sigma) | \(decimal(uncalibrated.error.relativeL2)) | \(share)% | "
      text += "\(decimal(calibrated.error.relativeL2)) |\n"
    }
    return text
  }

  /// Four digits behind the point.
  private static func decimal(_ value: Double) -> String {
    let number = Int((value * 10_000).rounded())
    let part = String(number % 10_000)
    return "\(number / 10_000)." + String(repeating: "0", count: 4 - part.count) + part
  }
}
