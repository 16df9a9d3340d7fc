import CPUBackend
import CUDABackend
import CUDASupport
import KVQuantization
import PagedCache

/// The dequantise kernel against the CPU's decoders, bit for bit.
enum DequantizeChecks {
  static func all(quick: Bool) -> [DeviceCase] {
    var cases: [DeviceCase] = []
    var turn = 0
    for recipe in CUDAAttention.recipes {
      for dimension in quick ? [128] : CUDAAttention.headDimensions {
        turn += 1
        cases.append(
          check(
            recipe, turn % 4 == 0 ? .fp8E4M3 : recipe, dimension: dimension,
            pageSize: CUDAAttention.pageSizes[turn % 4],
            type: turn % 2 == 0 ? .bf16 : .f32))
      }
    }
    return cases
  }

  private static func check(
    _ recipeK: KVRecipe, _ recipeV: KVRecipe, dimension: Int, pageSize: Int, type: ActivationType
  ) -> DeviceCase {
    let name = "check/dequantize/\(recipeK.name)-\(recipeV.name)/d\(dimension)/p\(pageSize)/\(type.name)"
    return DeviceCase(name: name) {
      try MHALayout(kvHeadCount: 2, headDimension: dimension, pageSize: pageSize, recipeK: recipeK, recipeV: recipeV)
    } instances: {
      [PagedDequantize.instance(layout: $0)]
    } run: { layout, bench in
      try run(layout, type, seed: DeviceCase.seed(name), bench)
    }
  }

  private static func run(
    _ layout: MHALayout, _ type: ActivationType, seed: UInt64, _ bench: DeviceBench
  ) throws -> CaseResult {
    let scales = DecodeScales(key: 0.0021, value: 0.0037)
    let cache = try CacheFixture(
      layout: layout, lengths: [333], scales: scales, seed: seed, workers: bench.workers)
    let pool = try cache.upload(to: bench)
    let pages = try DeviceBuffer<Int32>.holding(cache.pageTables[0], on: bench.stream)
    let range = 19..<330
    let width = layout.kvHeadCount * layout.headDimension
    // One row more than is written, to see that it stays as it was.
    let keys = try DeviceBuffer<UInt8>(bench.context, count: (range.count + 1) * width * type.byteCount)
    let values = try DeviceBuffer<UInt8>(bench.context, count: (range.count + 1) * width * type.byteCount)
    try keys.fill(byte: 0xff, on: bench.stream)
    try values.fill(byte: 0xff, on: bench.stream)
    let dequantize = try PagedDequantize(layout: layout, outputType: type, library: bench.library)
    try dequantize.run(
      PagedDequantize.Call(
        keys: keys.address, values: values.address, cache: try pool.address(layer: 0), pageStride: pool.pageStride,
        pageTable: pages.address, tokens: range, scales: scales), on: bench.stream)

    var wrong = 0
    var first: String?
    for (kind, bytes) in [
      (CacheRegionKind.key, try keys.array(on: bench.stream)), (.value, try values.array(on: bench.stream)),
    ] {
      let found = type.values(bytes)
      for head in 0..<layout.kvHeadCount {
        let region = layout.regions[2 * head + (kind == .key ? 0 : 1)]
        let expected = RowReader(pool: cache.pool, layer: 0, region: region).rows(
          range, pages: cache.pageTables[0][...])
        for index in 0..<expected.count {
          let (token, d) = (index / layout.headDimension, index % layout.headDimension)
          let value = found[token * width + head * layout.headDimension + d]
          let wanted = type.rounded(expected[index])
          if value.bitPattern != wanted.bitPattern {
            wrong += 1
            first =
              first
              ?? "\(kind) of token \(range.lowerBound + token), head \(head), dim \(d): \(value), expected \(wanted)"
          }
        }
      }
      if !bytes.suffix(width * type.byteCount).allSatisfy({ $0 == 0xff }) {
        first = first ?? "\(kind): wrote past the end"
      }
    }
    var result = CaseResult(passed: first == nil, failure: first)
    result.line.add("tokens", range.count)
    result.line.add("wrong_values", wrong)
    return result
  }
}
