import KVQuantization

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// The memory of all pages: `pageCount` pages, each holding one record per layer, the layers of a page one behind the other.
/// The pool owns bytes and their meaning (layout, scales); who may use which page is the allocator's business.
///
/// Memory is reserved at once, zeroed, and backed by huge pages where the system allows; the system provides it on first use.
public final class PagePool: @unchecked Sendable {
  public let layout: CacheLayout
  public let layerCount: Int
  public let pageCount: Int
  /// FP32 factors, one pair a layer.
  public let scales: [DecodeScales]
  /// Start of page 0, layer 0.
  public let base: UnsafeMutableRawPointer
  /// The layout's regions, made once: kernels ask for them in every layer of every step.
  public let regions: [CacheRegion]
  /// Bytes of one page of one layer.
  public let recordBytes: Int
  /// Bytes of one page over all layers.
  public var pageBytes: Int { recordBytes * layerCount }
  /// Bytes of the pool.
  public let byteCount: Int
  /// A blank row's codes or block scales.
  let zeros: [UInt8]

  /// - Parameter scales: one pair a layer.
  /// - Throws: `PagedCacheError.invalidGeometry` for a count mismatch or an overflow, `.outOfMemory`.
  public init(
    layout: CacheLayout, layerCount: Int, pageCount: Int, scales: [DecodeScales]
  ) throws(PagedCacheError) {
    guard layerCount > 0, pageCount > 0 else {
      throw .invalidGeometry("expected at least one layer and one page, found \(layerCount) and \(pageCount)")
    }
    guard scales.count == layerCount else {
      throw .invalidGeometry("expected scales for \(layerCount) layers, found \(scales.count)")
    }
    let recordBytes = layout.recordBytes
    let (page, overflowA) = recordBytes.multipliedReportingOverflow(by: layerCount)
    let (bytes, overflowB) = page.multipliedReportingOverflow(by: pageCount)
    guard !overflowA, !overflowB else { throw .outOfMemory(bytes: Int.max) }
    let memory = mmap(nil, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | Self.noReserve, -1, 0)
    guard let memory, memory != MAP_FAILED else { throw .outOfMemory(bytes: bytes) }
    #if os(Linux)
      madvise(memory, bytes, Int32(MADV_HUGEPAGE))
    #endif
    self.layout = layout
    self.regions = layout.regions
    self.layerCount = layerCount
    self.pageCount = pageCount
    self.scales = scales
    self.base = memory
    self.recordBytes = recordBytes
    self.byteCount = bytes
    zeros = [UInt8](repeating: 0, count: regions.map { $0.recipe.rowBytes(dimension: $0.dimension) }.max() ?? 0)
  }

  deinit { munmap(base, byteCount) }

  #if os(Linux)
    private static let noReserve = Int32(MAP_NORESERVE)
  #else
    private static let noReserve: Int32 = 0
  #endif

  /// The record of one page of one layer, `recordBytes` long.
  @inlinable public func record(page: Int, layer: Int) -> UnsafeMutableRawPointer {
    base + (page * layerCount + layer) * recordBytes
  }
}
